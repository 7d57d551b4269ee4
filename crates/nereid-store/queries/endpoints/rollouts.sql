-- Rollouts under way of the locked endpoints $1. A generation is ready when each variant has all its
-- replicas ready, or one at least with all others failed: it must be able to carry the load, and must
-- not wait for ever.
SELECT
    o.endpoint_id, o.generation, o.from_generation, o.status, o.share, o.due_at, o.started_at,
    o.changed_at, g.settings, now() AS "now!",
    NOT EXISTS (
        SELECT FROM endpoint_variants v
        LEFT JOIN variant_scaling s ON s.variant_id = v.id
        CROSS JOIN LATERAL (
            SELECT
                count(*) FILTER (WHERE r.status = 'ready') AS ready,
                count(*) FILTER (WHERE r.status = 'loading') AS loading,
                count(*) FILTER (WHERE r.status = 'failed') AS failed
            FROM replicas r JOIN workers w ON w.id = r.worker_id
            WHERE r.variant_id = v.id AND w.status <> 'gone'
        ) r
        WHERE v.endpoint_id = o.endpoint_id AND v.generation = o.generation
          AND r.ready < COALESCE(s.desired, v.replicas)
          AND NOT (r.ready > 0 AND r.loading = 0 AND r.ready + r.failed >= COALESCE(s.desired, v.replicas))
    ) AS "ready!"
FROM endpoint_rollouts o
JOIN endpoints e ON e.id = o.endpoint_id AND e.generation = o.generation AND e.deleted_at IS NULL
JOIN endpoint_generations g ON g.endpoint_id = o.endpoint_id AND g.generation = o.generation
WHERE o.endpoint_id = ANY ($1::uuid[]) AND o.status IN ('warming', 'shifting', 'baking')
