-- The guard ($3) and the change are one statement; the event gets the number drawn with it.
WITH changed AS (
    UPDATE jobs SET
        status = $2,
        phase = NULL,
        stop_requested = stop_requested AND NOT $4,
        attempts = CASE WHEN $4 THEN 0 ELSE attempts + $5 END,
        error = $6,
        result = $7,
        termination_reason = $8,
        finished_at = CASE WHEN $9::boolean THEN clock_timestamp() END,
        last_event_seq = last_event_seq + 1
    WHERE id = $1 AND status = ANY ($3::text[])
    RETURNING id, last_event_seq
)
INSERT INTO job_events (job_id, seq, kind, data, at)
SELECT id, last_event_seq, 'status_changed', $10, clock_timestamp() FROM changed
