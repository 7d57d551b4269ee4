-- Renews the leases of worker $1 that are current, and tells which ones others hold locked: one
-- job that somebody works on must not keep the worker from renewing its other leases.
WITH beats AS (
    SELECT * FROM unnest($2::uuid[], $3::bigint[], $4::uuid[]) AS b (job_id, epoch, claim_id)
), locked AS (
    SELECT l.job_id
    FROM beats b
    JOIN job_leases l ON l.job_id = b.job_id AND l.epoch = b.epoch AND l.claim_id = b.claim_id
    WHERE l.state = 'running' AND l.worker_id = $1
    FOR NO KEY UPDATE OF l SKIP LOCKED
), renewed AS (
    UPDATE job_leases l SET expires_at = clock_timestamp() + make_interval(secs => $5)
    FROM (SELECT DISTINCT job_id FROM locked) AS o
    WHERE l.job_id = o.job_id
    RETURNING l.job_id, l.requested
)
SELECT DISTINCT l.job_id, r.job_id IS NOT NULL AS "renewed!", r.requested
FROM beats b
JOIN job_leases l ON l.job_id = b.job_id AND l.epoch = b.epoch AND l.claim_id = b.claim_id
LEFT JOIN renewed r ON r.job_id = l.job_id
WHERE l.state = 'running' AND l.worker_id = $1
