-- Cold rows, queue rows, first events and audit entries of jobs that name nothing to lock. With $14
-- the commit also wakes the workers, one round trip sooner than a notification of its own.
WITH new AS (
    SELECT * FROM unnest(
        $1::uuid[], $2::uuid[], $3::text[], $4::jsonb[], $5::jsonb[], $6::integer[], $7::integer[],
        $8::text[], $9::jsonb[], $10::integer[], $11::integer[], $12::uuid[])
        AS n (id, project_id, kind, spec, labels, priority, max_attempts, device, worker_labels,
              max_runtime_seconds, max_queue_seconds, actor)
), job AS (
    INSERT INTO jobs (
        id, project_id, kind, spec_version, spec, labels, priority, max_attempts, device,
        worker_labels, max_runtime_seconds, max_queue_seconds, status, queued_at, last_event_seq)
    SELECT
        id, project_id, kind, $13, spec, labels, priority, max_attempts, device, worker_labels,
        max_runtime_seconds, max_queue_seconds, 'queued', now(), 1
    FROM new
    RETURNING id, project_id, kind, priority, device, worker_labels, max_queue_seconds, created_at
), lease AS (
    INSERT INTO job_leases (
        job_id, project_id, kind, state, sort_key, available_at, gives_up_at, device, labels, epoch)
    SELECT
        id, project_id, kind, 'queued', created_at - priority * interval '10 minutes', created_at,
        created_at + make_interval(secs => max_queue_seconds), device, worker_labels, 0
    FROM job
), event AS (
    INSERT INTO job_events (job_id, seq, kind, data, at)
    SELECT id, 1, 'submitted', jsonb_build_object('kind', kind), clock_timestamp() FROM job
), audit AS (
    INSERT INTO audit_log (project_id, actor, action, resource)
    SELECT project_id, actor, 'submit', 'job/' || id FROM new
), wake AS MATERIALIZED (
    SELECT pg_notify($15, $16) AS sent WHERE $14::boolean
)
SELECT j.id, j.created_at FROM job j LEFT JOIN wake w ON w.sent IS NOT NULL
