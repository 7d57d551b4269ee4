-- Worker $1 lets go of replicas of deleted and unloaded endpoints, of generations that neither
-- serve nor are the newest nor are kept for a rollback, and, while it drains, of those that other workers have
-- made up for.
UPDATE replicas r SET status = 'draining', updated_at = now()
FROM endpoint_variants v
JOIN endpoints e ON e.id = v.endpoint_id
LEFT JOIN variant_scaling s ON s.variant_id = v.id
CROSS JOIN workers w
WHERE r.worker_id = $1 AND r.status IN ('loading', 'ready')
  AND v.id = r.variant_id AND w.id = $1
  AND (
      e.deleted_at IS NOT NULL
      OR e.unloaded_at IS NOT NULL
      OR (v.generation <> e.generation AND v.generation IS DISTINCT FROM e.serving_generation
          AND NOT EXISTS (
              SELECT FROM endpoint_rollouts o
              WHERE o.endpoint_id = e.id AND o.from_generation = v.generation AND o.status = 'baking'))
      OR (w.status = 'draining' AND COALESCE(s.desired, v.replicas) <= (
          SELECT count(*) FROM replicas o JOIN workers ow ON ow.id = o.worker_id
          WHERE o.variant_id = v.id AND o.status = 'ready' AND ow.status = 'active')))
