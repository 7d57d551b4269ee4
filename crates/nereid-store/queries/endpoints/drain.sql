-- Worker $1 lets go of replicas of deleted endpoints, of generations that neither serve nor are
-- the newest, and, while it drains, of those that other workers have made up for.
UPDATE replicas r SET status = 'draining', updated_at = now()
FROM endpoint_variants v, endpoints e, workers w
WHERE r.worker_id = $1 AND r.status IN ('loading', 'ready')
  AND v.id = r.variant_id AND e.id = v.endpoint_id AND w.id = r.worker_id
  AND (
      e.deleted_at IS NOT NULL
      OR (v.generation <> e.generation AND v.generation IS DISTINCT FROM e.serving_generation)
      OR (w.status = 'draining' AND v.replicas <= (
          SELECT count(*) FROM replicas o JOIN workers ow ON ow.id = o.worker_id
          WHERE o.variant_id = v.id AND o.status = 'ready' AND ow.status = 'active')))
