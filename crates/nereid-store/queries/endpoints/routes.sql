-- Ready replicas of the generations that serve, on workers heard of within the last $1 seconds.
SELECT
    e.id AS endpoint, e.project_id, e.name, v.generation,
    v.id AS variant, v.name AS variant_name, v.weight, v.settings,
    m.name AS model, mv.version, mv.signature,
    encode(sha256(convert_to((mv.serving -> 'files')::text, 'UTF8')), 'hex') AS digest,
    r.id AS replica, w.id AS worker, w.url
FROM endpoints e
JOIN endpoint_variants v ON v.endpoint_id = e.id AND v.generation = e.serving_generation
JOIN model_versions mv ON mv.id = v.model_version_id
JOIN models m ON m.id = mv.model_id
JOIN replicas r ON r.variant_id = v.id AND r.status = 'ready'
JOIN workers w ON w.id = r.worker_id
WHERE e.deleted_at IS NULL
  AND w.status <> 'gone'
  AND w.heartbeat_at > clock_timestamp() - make_interval(secs => $1)
ORDER BY e.id, v.position, r.id
