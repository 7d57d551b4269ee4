-- A job that stood still gets a queue row again, at the end of its priority's queue.
INSERT INTO job_leases (
    job_id, project_id, kind, state, sort_key, available_at, gives_up_at, device, labels, epoch,
    requested)
SELECT
    id, project_id, kind, 'queued', now() - priority * interval '10 minutes', now(),
    now() + make_interval(secs => max_queue_seconds), device, worker_labels, epoch, requested
FROM jobs WHERE id = $1
