-- What the locked endpoints $2 lack, as far as it is worker $1's share: replicas are spread evenly
-- over the active workers that have not failed to load the variant. A worker that is back takes one
-- on although none lacks while another holds more than its share, which is drained once it is ready.
WITH lacking AS (
    SELECT v.id, COALESCE(s.desired, v.replicas) AS replicas, live.n AS live, live.own, eligible.n AS eligible,
        crowded.most
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
    CROSS JOIN LATERAL (
        SELECT max(c.n) AS most FROM (
            SELECT count(*) AS n FROM replicas r JOIN workers w ON w.id = r.worker_id
            WHERE r.variant_id = v.id AND r.status IN ('loading', 'ready') AND w.status = 'active'
            GROUP BY w.id
        ) c
    ) crowded
    WHERE e.id = ANY ($2::uuid[]) AND NOT EXISTS (
        SELECT FROM replicas r
        WHERE r.variant_id = v.id AND r.worker_id = $1 AND r.status = 'failed')
), shares AS (
    SELECT *, (replicas + eligible - 1) / GREATEST(eligible, 1) AS share FROM lacking
)
INSERT INTO replicas (id, variant_id, worker_id, status)
SELECT uuid_v7(), id, $1, 'loading'
FROM shares, generate_series(1, LEAST(
    GREATEST(replicas - live, CASE WHEN live = replicas AND most > share THEN 1 ELSE 0 END),
    share - own
))
