-- Worker $1 with device $2, which knows the kinds $5, takes up to $3 jobs for $4 seconds. One
-- statement, so that no process holds the locks while it stands still.
--
-- Fairness: the n-th waiting job of a project has turn n plus what the project runs already, and
-- turns go first, then the sort key; so within a project the sort key alone decides. Only jobs
-- that this worker can take count, so that others block nothing. $7 candidates of each project are
-- looked at, more than there are slots, because other claimers skip past the ones locked here.
--
-- Each candidate is locked by its key, behind a LIMIT: with statistics of an emptier queue Postgres
-- would walk all of it for each of them.
WITH me AS (
    SELECT labels FROM workers WHERE id = $1 AND status = 'active'
), busy AS MATERIALIZED (
    SELECT project_id, count(*) AS running
    FROM job_leases
    WHERE state = 'running'
      -- A single project need not be fair to itself.
      AND (SELECT count(*) FROM (SELECT FROM projects LIMIT 2) p) > 1
    GROUP BY project_id
), candidates AS MATERIALIZED (
    SELECT
        q.job_id,
        COALESCE(b.running, 0) + row_number() OVER (PARTITION BY p.id ORDER BY q.sort_key, q.job_id) AS turn,
        q.sort_key
    FROM me
    CROSS JOIN projects p
    LEFT JOIN busy b ON b.project_id = p.id
    CROSS JOIN LATERAL (
        SELECT l.job_id, l.sort_key
        FROM job_leases l
        WHERE l.project_id = p.id AND l.state = 'queued'
          AND l.available_at <= statement_timestamp()
          AND l.kind = ANY ($5::text[])
          AND (l.device IS NULL OR l.device = $2)
          AND me.labels @> l.labels
        ORDER BY l.sort_key, l.job_id
        LIMIT $7::bigint
    ) q
), picked AS MATERIALIZED (
    SELECT c.job_id, l.epoch + 1 AS epoch, gen_random_uuid() AS claim_id, l.requested
    FROM (SELECT * FROM candidates ORDER BY turn, sort_key, job_id) c
    CROSS JOIN LATERAL (
        SELECT state, available_at, epoch, requested FROM job_leases WHERE job_id = c.job_id
        LIMIT 1 FOR UPDATE SKIP LOCKED
    ) l
    WHERE l.state = 'queued' AND l.available_at <= statement_timestamp()
    LIMIT $3::bigint
), started AS (
    UPDATE jobs j SET
        status = 'running',
        phase = 'starting',
        epoch = t.epoch,
        queued_at = NULL,
        started_at = COALESCE(j.started_at, clock_timestamp()),
        last_event_seq = j.last_event_seq + 1
    FROM picked t
    WHERE j.id = t.job_id AND j.status = ANY ($6::text[])
    RETURNING
        j.id, j.project_id, j.kind, j.spec, j.attempts, j.max_runtime_seconds, j.budget_epoch,
        j.last_event_seq, t.epoch, t.claim_id, t.requested
), taken AS (
    UPDATE job_leases l SET
        state = 'running',
        epoch = t.epoch,
        claim_id = t.claim_id,
        worker_id = $1,
        gives_up_at = NULL,
        expires_at = clock_timestamp() + make_interval(secs => $4)
    FROM started t
    WHERE l.job_id = t.id
), attempts AS (
    INSERT INTO job_attempts (job_id, epoch, claim_id, worker_id)
    SELECT id, epoch, claim_id, $1 FROM started
), events AS (
    INSERT INTO job_events (job_id, seq, kind, data, at)
    SELECT
        id, last_event_seq, 'status_changed',
        jsonb_build_object('status', 'running', 'epoch', epoch, 'worker_id', $1),
        clock_timestamp()
    FROM started
)
SELECT
    s.id, s.project_id, s.kind, s.spec, s.attempts, s.requested, s.epoch AS "epoch!", s.claim_id AS "claim_id!",
    CASE WHEN s.max_runtime_seconds IS NOT NULL THEN
        s.max_runtime_seconds - (
            SELECT COALESCE(sum(extract(epoch FROM a.ended_at - a.started_at)), 0)
            FROM job_attempts a
            WHERE a.job_id = s.id AND a.epoch > s.budget_epoch AND a.ended_at IS NOT NULL)
    END::double precision AS runtime_left,
    -- The first attempt has none to go on from.
    CASE WHEN s.epoch > 1 THEN (
        SELECT jsonb_agg(
            jsonb_build_object('key', c.key, 'bytes', c.bytes, 'sha256', c.sha256, 'step', c.step)
            ORDER BY c.epoch DESC, c.step DESC)
        FROM job_checkpoints c WHERE c.job_id = s.id
    ) END AS checkpoints
FROM started s
