-- A running job's lease goes back to the queue for $2 seconds at least, at its old place.
UPDATE job_leases l SET
    state = 'queued', claim_id = NULL, worker_id = NULL, expires_at = NULL,
    available_at = n.available_at,
    gives_up_at = n.available_at + make_interval(secs => j.max_queue_seconds)
FROM jobs j, (SELECT clock_timestamp() + make_interval(secs => $2) AS available_at) n
WHERE l.job_id = $1 AND j.id = $1
