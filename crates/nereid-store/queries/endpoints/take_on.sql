-- What the locked endpoints $2 lack, as far as it is worker $1's share: replicas are spread evenly
-- over the active workers that have not failed to load the variant.
WITH lacking AS (
    SELECT v.id, COALESCE(s.desired, v.replicas) AS replicas, live.n AS live, live.own, eligible.n AS eligible
    FROM endpoints e
    JOIN endpoint_variants v ON v.endpoint_id = e.id AND v.generation IN (e.generation, e.serving_generation)
    LEFT JOIN variant_scaling s ON s.variant_id = v.id
    CROSS JOIN LATERAL (
        SELECT count(*) AS n, count(*) FILTER (WHERE w.id = $1) AS own
        FROM replicas r JOIN workers w ON w.id = r.worker_id
        WHERE r.variant_id = v.id AND r.status IN ('loading', 'ready') AND w.status = 'active'
    ) live
    CROSS JOIN LATERAL (
        SELECT count(*) AS n FROM workers w
        WHERE w.status = 'active' AND NOT EXISTS (
            SELECT FROM replicas r
            WHERE r.variant_id = v.id AND r.worker_id = w.id AND r.status = 'failed')
    ) eligible
    WHERE e.id = ANY ($2::uuid[]) AND NOT EXISTS (
        SELECT FROM replicas r
        WHERE r.variant_id = v.id AND r.worker_id = $1 AND r.status = 'failed')
)
INSERT INTO replicas (id, variant_id, worker_id, status)
SELECT uuid_v7(), id, $1, 'loading'
FROM lacking, generate_series(1, LEAST(
    replicas - live,
    (replicas + eligible - 1) / GREATEST(eligible, 1) - own
))
