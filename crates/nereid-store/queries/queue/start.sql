-- The jobs of leases that worker $4 has just taken start running.
WITH claimed AS (
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[]) AS c (job_id, epoch, claim_id)
), changed AS (
    UPDATE jobs j SET
        status = 'running',
        phase = 'starting',
        epoch = c.epoch,
        started_at = COALESCE(j.started_at, clock_timestamp()),
        last_event_seq = j.last_event_seq + 1
    FROM claimed c
    WHERE j.id = c.job_id AND j.status = ANY ($5::text[])
    RETURNING j.id, j.project_id, j.kind, j.spec, j.attempts, j.checkpoint, j.last_event_seq, c.epoch, c.claim_id
), attempts AS (
    INSERT INTO job_attempts (job_id, epoch, claim_id, worker_id)
    SELECT id, epoch, claim_id, $4::uuid FROM changed
), events AS (
    INSERT INTO job_events (job_id, seq, kind, data, at)
    SELECT
        id, last_event_seq, 'status_changed',
        jsonb_build_object('status', 'running', 'epoch', epoch, 'worker_id', $4::uuid),
        clock_timestamp()
    FROM changed
)
SELECT id, project_id, kind, spec, attempts, checkpoint FROM changed
