-- Hands up to $2 expired leases back. One statement: whether a lease is expired is decided by the
-- database's clock under the row's lock, however late a process that stood still gets here, and
-- no process holds those locks while it stands still.
--
-- $3 to $7 is core's table of what becomes of a job by what was asked of it, whether its budget
-- of lost leases has more left, and whether there is a checkpoint; $8 are the longest delays by
-- leases lost before, $9 is the budget.
WITH rules AS (
    SELECT * FROM unnest($3::text[], $4::boolean[], $5::boolean[], $6::text[], $7::text[])
        AS r (requested, more, trained, status, reason)
), expired AS MATERIALIZED (
    SELECT job_id, epoch, requested
    FROM job_leases
    WHERE state = 'running'
      AND expires_at < clock_timestamp()
      -- While Postgres was away nobody could renew.
      AND pg_postmaster_start_time() <= clock_timestamp() - make_interval(secs => $1)
    LIMIT $2
    FOR UPDATE SKIP LOCKED
), changed AS (
    UPDATE jobs j SET
        status = r.status,
        phase = NULL,
        requested = CASE WHEN r.status = 'queued' THEN j.requested END,
        lease_losses = j.lease_losses + 1,
        error = CASE WHEN r.status IN ('queued', 'failed')
            THEN jsonb_build_object('reason', 'lease_lost', 'message', $10::text) END,
        termination_reason = CASE WHEN r.status IN ('failed', 'stopped') THEN r.reason END,
        queued_at = CASE WHEN r.status = 'queued' THEN clock_timestamp() END,
        finished_at = CASE WHEN r.status IN ('failed', 'stopped') THEN clock_timestamp() END,
        last_event_seq = j.last_event_seq + 1
    FROM expired e, rules r
    WHERE j.id = e.job_id
      AND j.status = 'running'
      AND r.requested IS NOT DISTINCT FROM e.requested
      AND r.more = (j.lease_losses + 1 < $9::integer)
      AND r.trained = EXISTS (SELECT FROM job_checkpoints c WHERE c.job_id = e.job_id)
    RETURNING
        j.id, e.epoch, j.status, r.reason, j.last_event_seq, j.max_queue_seconds,
        clock_timestamp() + make_interval(secs => ($8::double precision[])[j.lease_losses] * random()) AS available_at
), attempts AS (
    UPDATE job_attempts a SET ended_at = clock_timestamp(), reason = 'lease_lost', message = $10
    FROM changed c WHERE a.job_id = c.id AND a.epoch = c.epoch
), requeued AS (
    UPDATE job_leases l SET
        state = 'queued', claim_id = NULL, worker_id = NULL, expires_at = NULL,
        available_at = c.available_at,
        gives_up_at = c.available_at + make_interval(secs => c.max_queue_seconds)
    FROM changed c WHERE l.job_id = c.id AND c.status = 'queued'
), dropped AS (
    -- Also those whose job does not run, which would otherwise be looked at for ever. One whose job
    -- runs and for which there is no rule, such as a word of a newer schema, stays: without its
    -- lease nobody would ever look at the job again.
    DELETE FROM job_leases l
    USING expired e
    JOIN jobs j ON j.id = e.job_id
    LEFT JOIN changed c ON c.id = e.job_id
    WHERE l.job_id = e.job_id
      AND CASE WHEN c.id IS NULL THEN j.status <> 'running' ELSE c.status <> 'queued' END
), events AS (
    INSERT INTO job_events (job_id, seq, kind, data, at)
    SELECT
        id, last_event_seq, 'status_changed',
        jsonb_build_object('status', status, 'reason', reason, 'message', $10), clock_timestamp()
    FROM changed
)
SELECT id, status FROM changed
