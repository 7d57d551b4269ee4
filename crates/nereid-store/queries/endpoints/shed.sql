-- Replicas beyond the number wanted, of generations of the locked endpoints $1 that serve or are the
-- newest: each worker keeps its oldest one first, so that the fullest gives one up.
UPDATE replicas SET status = 'draining', updated_at = now()
WHERE id IN (
    SELECT id FROM (
        SELECT r.id, r.desired, row_number() OVER (PARTITION BY r.variant_id ORDER BY r.of_worker, r.created_at, r.id) AS place
        FROM (
            SELECT r.id, r.variant_id, r.created_at, COALESCE(s.desired, v.replicas) AS desired,
                row_number() OVER (PARTITION BY r.variant_id, r.worker_id ORDER BY r.created_at, r.id) AS of_worker
            FROM endpoints e
            JOIN endpoint_variants v
                ON v.endpoint_id = e.id AND v.generation IN (e.generation, e.serving_generation)
            LEFT JOIN variant_scaling s ON s.variant_id = v.id
            JOIN replicas r ON r.variant_id = v.id AND r.status = 'ready'
            JOIN workers w ON w.id = r.worker_id AND w.status = 'active'
            WHERE e.id = ANY ($1::uuid[])
        ) r
    ) r
    WHERE place > desired
)
