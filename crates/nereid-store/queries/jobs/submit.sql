-- Cold row, inputs, queue row and first event of a job.
WITH job AS (
    INSERT INTO jobs (
        id, project_id, kind, spec_version, spec, model, model_version_id, dataset_version_id,
        labels, priority, max_attempts, device, worker_labels, max_runtime_seconds,
        max_queue_seconds, status, queued_at, last_event_seq)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 'queued', now(), 1)
    RETURNING id, project_id, kind, priority, device, worker_labels, max_queue_seconds, created_at
), inputs AS (
    INSERT INTO job_inputs (job_id, dataset_version_id)
    SELECT id, dataset FROM job, unnest($16::uuid[]) AS dataset
), lease AS (
    INSERT INTO job_leases (
        job_id, project_id, kind, state, sort_key, available_at, gives_up_at, device, labels, epoch)
    SELECT
        id, project_id, kind, 'queued', created_at - priority * interval '10 minutes', created_at,
        created_at + make_interval(secs => max_queue_seconds), device, worker_labels, 0
    FROM job
)
INSERT INTO job_events (job_id, seq, kind, data, at)
SELECT id, 1, 'submitted', $17, clock_timestamp() FROM job
