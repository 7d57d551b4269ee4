-- Traffic shifts when each variant of the newest generation has all its replicas ready, or one at
-- least with all others failed: it must be able to carry the load, and must not wait for ever.
WITH advanced AS (
    UPDATE endpoints e SET serving_generation = e.generation, status = 'in_service'
    WHERE e.id = ANY ($1::uuid[])
      AND e.deleted_at IS NULL
      AND e.serving_generation IS DISTINCT FROM e.generation
      AND NOT EXISTS (
          SELECT FROM endpoint_variants v
          CROSS JOIN LATERAL (
              SELECT
                  count(*) FILTER (WHERE r.status = 'ready') AS ready,
                  count(*) FILTER (WHERE r.status = 'loading') AS loading,
                  count(*) FILTER (WHERE r.status = 'failed') AS failed
              FROM replicas r JOIN workers w ON w.id = r.worker_id
              WHERE r.variant_id = v.id AND w.status <> 'gone'
          ) r
          WHERE v.endpoint_id = e.id AND v.generation = e.generation
            AND r.ready < v.replicas
            AND NOT (r.ready > 0 AND r.loading = 0 AND r.ready + r.failed >= v.replicas))
    RETURNING e.id, e.generation
)
UPDATE endpoint_generations g SET served_at = COALESCE(g.served_at, now())
FROM advanced a
WHERE g.endpoint_id = a.id AND g.generation = a.generation
