-- Cold row, inputs, queue row and first event of a job.
WITH job AS (
    INSERT INTO jobs (
        id, project_id, kind, spec_version, spec, model, model_version_id, dataset_version_id,
        labels, priority, max_attempts, status, last_event_seq)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'queued', 1)
    RETURNING id, project_id, kind, priority, created_at
), inputs AS (
    INSERT INTO job_inputs (job_id, dataset_version_id)
    SELECT id, dataset FROM job, unnest($12::uuid[]) AS dataset
), lease AS (
    INSERT INTO job_leases (job_id, project_id, kind, state, sort_key, available_at, epoch)
    SELECT id, project_id, kind, 'queued', created_at - priority * interval '10 minutes', created_at, 0
    FROM job
)
INSERT INTO job_events (job_id, seq, kind, data, at)
SELECT id, 1, 'submitted', $13, clock_timestamp() FROM job
