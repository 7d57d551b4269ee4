-- Fails up to $1 jobs that have waited for longer than they may.
WITH late AS MATERIALIZED (
    SELECT job_id
    FROM job_leases
    WHERE state = 'queued'
      AND gives_up_at < clock_timestamp()
      -- While Postgres was away nobody could claim.
      AND pg_postmaster_start_time() <= clock_timestamp() - make_interval(secs => $2)
    ORDER BY gives_up_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
), dropped AS (
    DELETE FROM job_leases l USING late WHERE l.job_id = late.job_id
), changed AS (
    UPDATE jobs j SET
        status = 'failed',
        requested = NULL,
        error = jsonb_build_object('reason', 'max_queue_time_exceeded', 'message', $3::text),
        termination_reason = 'max_queue_time_exceeded',
        queued_at = NULL,
        finished_at = clock_timestamp(),
        last_event_seq = j.last_event_seq + 1
    FROM late
    WHERE j.id = late.job_id AND j.status = 'queued'
    RETURNING j.id, j.last_event_seq
), events AS (
    INSERT INTO job_events (job_id, seq, kind, data, at)
    SELECT
        id, last_event_seq, 'status_changed',
        jsonb_build_object('status', 'failed', 'reason', 'max_queue_time_exceeded', 'message', $3),
        clock_timestamp()
    FROM changed
)
SELECT id FROM changed
