-- Ends the attempts (jobs $1, epochs $2, claims $3) whose jobs are done, with the results $4; $5
-- and $6 are the status and reason of such an end, $7 the statuses that may become it, $8 the
-- event's data. Returns the claims that it ended. One whose lease is not current, has expired or
-- was cancelled stays as it is, and so does one that somebody holds locked: the others must not
-- wait for it.
--
-- Each lease is looked up by its key, behind a LIMIT: with statistics of an emptier queue Postgres
-- would walk all running leases for each of them.
WITH asked AS (
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::jsonb[])
        AS a (job_id, epoch, claim_id, result)
), locked AS MATERIALIZED (
    SELECT a.job_id, a.epoch, a.claim_id, a.result
    FROM asked a
    CROSS JOIN LATERAL (
        SELECT epoch, claim_id, state, requested, expires_at
        FROM job_leases WHERE job_id = a.job_id
        LIMIT 1 FOR UPDATE SKIP LOCKED
    ) l
    WHERE l.epoch = a.epoch AND l.claim_id = a.claim_id AND l.state = 'running'
      -- Computed after any wait for the lock.
      AND l.expires_at > clock_timestamp()
      AND l.requested IS DISTINCT FROM 'cancel'
), changed AS (
    UPDATE jobs j SET
        status = $5,
        phase = NULL,
        requested = NULL,
        attempts = j.attempts + 1,
        error = NULL,
        result = l.result,
        termination_reason = $6,
        finished_at = clock_timestamp(),
        last_event_seq = j.last_event_seq + 1
    FROM locked l
    WHERE j.id = l.job_id AND j.status = ANY ($7::text[])
    RETURNING j.id, l.epoch, l.claim_id, j.last_event_seq
), attempts AS (
    UPDATE job_attempts a SET ended_at = clock_timestamp(), reason = $6
    FROM changed c WHERE a.job_id = c.id AND a.epoch = c.epoch
), dropped AS (
    DELETE FROM job_leases l USING changed c WHERE l.job_id = c.id
), events AS (
    INSERT INTO job_events (job_id, seq, kind, data, at)
    SELECT id, last_event_seq, 'status_changed', $8, clock_timestamp() FROM changed
)
SELECT claim_id AS "claim_id!" FROM changed
