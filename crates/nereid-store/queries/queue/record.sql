-- Phase and progress of running jobs, whose leases the caller has locked: so what is read here
-- cannot change before it is written. An event only for what is new.
WITH news AS (
    SELECT
        j.id, j.last_event_seq AS seq, b.phase, b.progress,
        b.phase IS NOT NULL AND b.phase IS DISTINCT FROM j.phase AS new_phase,
        b.progress IS NOT NULL AND b.progress IS DISTINCT FROM j.progress AS new_progress
    FROM unnest($1::uuid[], $2::text[], $3::jsonb[]) AS b (job_id, phase, progress)
    JOIN jobs j ON j.id = b.job_id
    WHERE j.status = 'running'
), changed AS (
    UPDATE jobs j SET
        phase = COALESCE(n.phase, j.phase),
        progress = COALESCE(n.progress, j.progress),
        last_event_seq = n.seq + n.new_phase::integer + n.new_progress::integer
    FROM news n
    WHERE j.id = n.id AND (n.new_phase OR n.new_progress)
)
INSERT INTO job_events (job_id, seq, kind, data, at)
SELECT id, seq + 1, 'phase_changed', jsonb_build_object('phase', phase), clock_timestamp()
FROM news WHERE new_phase
UNION ALL
SELECT id, seq + 1 + new_phase::integer, 'progress', progress, clock_timestamp()
FROM news WHERE new_progress
RETURNING job_id
