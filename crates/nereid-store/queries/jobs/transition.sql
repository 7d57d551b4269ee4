-- The guard ($3) and the change are one statement; the event gets the number drawn with it.
WITH changed AS (
    UPDATE jobs SET
        status = $2,
        phase = NULL,
        -- What was asked holds until an attempt has done it.
        requested = CASE WHEN $2 = 'queued' THEN $11::text END,
        attempts = CASE WHEN $4 THEN 0 ELSE attempts + $5 END,
        lease_losses = CASE WHEN $4 THEN 0 ELSE lease_losses + $12 END,
        budget_epoch = CASE WHEN $4 THEN epoch ELSE budget_epoch END,
        error = $6,
        result = $7,
        termination_reason = $8,
        queued_at = CASE WHEN $2 = 'queued' THEN clock_timestamp() END,
        finished_at = CASE WHEN $9::boolean THEN clock_timestamp() END,
        last_event_seq = last_event_seq + 1
    WHERE id = $1 AND status = ANY ($3::text[])
    RETURNING id, last_event_seq
)
INSERT INTO job_events (job_id, seq, kind, data, at)
SELECT id, last_event_seq, 'status_changed', $10, clock_timestamp() FROM changed
