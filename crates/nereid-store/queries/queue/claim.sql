-- Takes up to $3 leases for worker $1 with device $2 for $4 seconds.
--
-- Fairness: the n-th waiting job of a project has turn n plus what the project runs already, and
-- turns go first, then the sort key; so within a project the sort key alone decides. More
-- candidates than slots are looked at, because other claimers skip past the ones locked here.
WITH me AS (
    SELECT labels FROM workers WHERE id = $1 AND status = 'active'
), busy AS (
    SELECT project_id, count(*) AS running FROM job_leases WHERE state = 'running' GROUP BY project_id
), candidates AS MATERIALIZED (
    SELECT
        q.job_id,
        COALESCE(b.running, 0) + row_number() OVER (PARTITION BY p.id ORDER BY q.sort_key, q.job_id) AS turn
    FROM me
    CROSS JOIN projects p
    LEFT JOIN busy b ON b.project_id = p.id
    CROSS JOIN LATERAL (
        SELECT l.job_id, l.sort_key
        FROM job_leases l
        WHERE l.project_id = p.id AND l.state = 'queued'
          AND l.available_at <= statement_timestamp()
          AND (l.device IS NULL OR l.device = $2)
          AND me.labels @> l.labels
        ORDER BY l.sort_key, l.job_id
        LIMIT $3::bigint * 8 + 32
    ) q
), picked AS (
    SELECT l.job_id, l.sort_key, c.turn
    FROM candidates c
    JOIN job_leases l ON l.job_id = c.job_id
    WHERE l.state = 'queued' AND l.available_at <= statement_timestamp()
    ORDER BY c.turn, l.sort_key, l.job_id
    LIMIT $3::bigint
    FOR UPDATE OF l SKIP LOCKED
)
UPDATE job_leases l SET
    state = 'running',
    epoch = l.epoch + 1,
    claim_id = gen_random_uuid(),
    worker_id = $1,
    expires_at = clock_timestamp() + make_interval(secs => $4)
FROM picked
WHERE l.job_id = picked.job_id
RETURNING l.job_id, l.epoch, l.claim_id AS "claim_id!", picked.turn AS "turn!", picked.sort_key
