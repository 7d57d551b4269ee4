-- Ready replicas, on workers heard of within the last $1 seconds, of the generations that serve and
-- of those that get a share or a copy of the traffic; also variants that sleep, which have none.
SELECT
    e.id AS endpoint, e.project_id, e.name, e.serving_generation AS "serving_generation!",
    o.generation AS "candidate?", o.share AS "share?", g.settings AS "rollout?",
    v.id AS variant, v.generation, v.name AS variant_name, v.weight, v.settings,
    m.name AS model, mv.version, mv.signature,
    encode(sha256(convert_to((COALESCE(v.artifact, mv.serving) -> 'files')::text, 'UTF8')), 'hex') AS digest,
    r.id AS "replica?", r.worker AS "worker?", r.url AS "url?"
FROM endpoints e
LEFT JOIN endpoint_rollouts o
    ON o.endpoint_id = e.id AND o.generation = e.generation AND o.status = 'shifting'
LEFT JOIN endpoint_generations g ON g.endpoint_id = o.endpoint_id AND g.generation = o.generation
JOIN endpoint_variants v
    ON v.endpoint_id = e.id AND (v.generation = e.serving_generation OR v.generation = o.generation)
JOIN model_versions mv ON mv.id = v.model_version_id
JOIN models m ON m.id = mv.model_id
LEFT JOIN variant_scaling s ON s.variant_id = v.id
LEFT JOIN (
    SELECT r.id, r.variant_id, w.id AS worker, w.url
    FROM replicas r JOIN workers w ON w.id = r.worker_id
    WHERE r.status = 'ready' AND w.status <> 'gone'
      AND w.heartbeat_at > clock_timestamp() - make_interval(secs => $1)
) r ON r.variant_id = v.id
WHERE e.deleted_at IS NULL AND e.unloaded_at IS NULL AND e.serving_generation IS NOT NULL AND (r.id IS NOT NULL OR s.desired = 0)
ORDER BY e.id, v.generation, v.position, r.id
