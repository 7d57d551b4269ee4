-- Pausing, requests beyond a plain stop, a budget for lost leases, limits on running and waiting
-- time, checkpoints as rows, and which binaries may use this schema.
--
-- Binaries of migration 1 know neither the new words nor job_checkpoints: `oldest_binary` keeps
-- them from starting, so end them before this migration.

-- ---------------------------------------------------------------- words

ALTER TABLE jobs
    DROP CONSTRAINT jobs_kind_check,
    DROP CONSTRAINT jobs_status_check,
    DROP CONSTRAINT jobs_termination_reason_check,
    ADD CONSTRAINT jobs_kind_check CHECK (kind IN ('train', 'deploy', 'noop')),
    ADD CONSTRAINT jobs_status_check CHECK (status IN ('queued', 'running', 'paused', 'succeeded', 'failed', 'stopped')),
    -- No 'paused': that ends an attempt, never a job.
    ADD CONSTRAINT jobs_termination_reason_check CHECK (termination_reason IN (
        'completed', 'cancelled', 'stopped_early', 'invalid_input', 'diverged', 'parity_failed',
        'max_runtime_exceeded', 'max_queue_time_exceeded', 'out_of_memory', 'disk_full', 'crashed',
        'unavailable', 'internal', 'lease_lost', 'worker_drained'));

ALTER TABLE job_attempts
    DROP CONSTRAINT job_attempts_reason_check,
    ADD CONSTRAINT job_attempts_reason_check CHECK (reason IN (
        'completed', 'cancelled', 'stopped_early', 'paused', 'invalid_input', 'diverged',
        'parity_failed', 'max_runtime_exceeded', 'max_queue_time_exceeded', 'out_of_memory',
        'disk_full', 'crashed', 'unavailable', 'internal', 'lease_lost', 'worker_drained'));

ALTER TABLE job_leases
    DROP CONSTRAINT job_leases_kind_check,
    ADD CONSTRAINT job_leases_kind_check CHECK (kind IN ('train', 'deploy', 'noop'));

-- What was a stop is a cancel now: it never kept a model.
ALTER TABLE job_events DROP CONSTRAINT job_events_kind_check;
UPDATE job_events SET kind = 'requested', data = '{"request": "cancel"}' WHERE kind = 'stop_requested';
ALTER TABLE job_events ADD CONSTRAINT job_events_kind_check CHECK (kind IN (
    'submitted', 'status_changed', 'phase_changed', 'progress', 'requested', 'checkpointed', 'published'));

-- ---------------------------------------------------------------- jobs

ALTER TABLE jobs
    ADD COLUMN requested           text CHECK (requested IN ('pause', 'stop', 'cancel')),
    ADD COLUMN lease_losses        integer NOT NULL DEFAULT 0 CHECK (lease_losses >= 0),
    ADD COLUMN budget_epoch        bigint NOT NULL DEFAULT 0,
    ADD COLUMN device              text CHECK (device IN ('cpu', 'gpu')),
    ADD COLUMN worker_labels       jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN max_runtime_seconds integer CHECK (max_runtime_seconds >= 1),
    ADD COLUMN max_queue_seconds   integer CHECK (max_queue_seconds >= 1),
    ADD COLUMN queued_at           timestamptz,
    ALTER COLUMN model DROP NOT NULL;

UPDATE jobs SET
    requested = CASE WHEN stop_requested AND status = 'running' THEN 'cancel' END,
    queued_at = CASE WHEN status = 'queued' THEN now() END
WHERE stop_requested OR status = 'queued';

ALTER TABLE jobs
    DROP COLUMN stop_requested,
    ADD CONSTRAINT jobs_model_check CHECK (model IS NOT NULL OR kind = 'noop'),
    ADD CONSTRAINT jobs_queued_at_check CHECK ((queued_at IS NOT NULL) = (status = 'queued')),
    ADD CONSTRAINT jobs_requested_check1 CHECK (requested IS NULL OR status IN ('queued', 'running')),
    ADD CONSTRAINT jobs_result_check CHECK (
        (result IS NOT NULL) = COALESCE(termination_reason IN ('completed', 'stopped_early'), false));

-- No index says a word of the status, so that a job's changes are HOT updates.
DROP INDEX jobs_unfinished;
CREATE INDEX jobs_model ON jobs (project_id, model) WHERE model IS NOT NULL;

COMMENT ON COLUMN jobs.model IS 'Name of the model that is trained or deployed; NULL for jobs about none.';
COMMENT ON COLUMN jobs.attempts IS 'Attempts used up, counted when they end; drained, paused and lost ones are not.';
COMMENT ON COLUMN jobs.requested IS 'What a client asked and no attempt has done yet; a later request may only be more final.';
COMMENT ON COLUMN jobs.lease_losses IS 'Attempts lost with their workers: a budget of its own.';
COMMENT ON COLUMN jobs.budget_epoch IS 'Epoch at the last retry by a client; attempts up to it count against no budget.';
COMMENT ON COLUMN jobs.device IS 'Device the job needs; NULL for any.';
COMMENT ON COLUMN jobs.worker_labels IS 'Labels a worker must have to take the job.';
COMMENT ON COLUMN jobs.max_runtime_seconds IS 'Longest running time, summed over the attempts since the last retry.';
COMMENT ON COLUMN jobs.max_queue_seconds IS 'Longest wait for a worker, each time the job is queued.';
COMMENT ON COLUMN jobs.queued_at IS 'Since when it waits.';

-- ---------------------------------------------------------------- the queue

ALTER TABLE job_leases
    ADD COLUMN requested   text CHECK (requested IN ('pause', 'stop', 'cancel')),
    ADD COLUMN gives_up_at timestamptz;

UPDATE job_leases SET requested = 'cancel' WHERE stop_requested;

ALTER TABLE job_leases
    DROP COLUMN stop_requested,
    ADD CONSTRAINT job_leases_gives_up_at_check CHECK (gives_up_at IS NULL OR state = 'queued');

-- Heartbeats change none of its columns, so they stay HOT updates.
CREATE INDEX job_leases_gives_up ON job_leases (gives_up_at) WHERE state = 'queued' AND gives_up_at IS NOT NULL;

COMMENT ON COLUMN job_leases.requested IS 'Copy of the job''s, so that a heartbeat reads this table only.';
COMMENT ON COLUMN job_leases.gives_up_at IS 'The job fails if it still waits then; NULL if it waits for ever, and while it runs.';

-- Room for what comes: a job's row is written twice more, an attempt's once.
ALTER TABLE jobs SET (fillfactor = 60);
ALTER TABLE job_attempts SET (fillfactor = 60);

-- Each key was looked up and locked in the other table for each row, which took a third of a
-- submission's or claim's time, and all submissions met at the row of their project. None can
-- dangle: projects, API keys, workers and jobs are never deleted, and these rows are written
-- together with the job, or under its lock by a statement that has read the worker.
ALTER TABLE jobs DROP CONSTRAINT jobs_project_id_fkey;
ALTER TABLE job_leases
    DROP CONSTRAINT job_leases_job_id_fkey,
    DROP CONSTRAINT job_leases_project_id_fkey,
    DROP CONSTRAINT job_leases_worker_id_fkey;
ALTER TABLE job_attempts
    DROP CONSTRAINT job_attempts_job_id_fkey,
    DROP CONSTRAINT job_attempts_worker_id_fkey;
ALTER TABLE audit_log
    DROP CONSTRAINT audit_log_project_id_fkey,
    DROP CONSTRAINT audit_log_actor_fkey;

-- ---------------------------------------------------------------- checkpoints

CREATE TABLE job_checkpoints (
    job_id    uuid NOT NULL REFERENCES jobs,
    epoch     bigint NOT NULL,
    claim_id  uuid NOT NULL,
    step      bigint NOT NULL CHECK (step >= 0),
    key       text NOT NULL,
    bytes     bigint NOT NULL CHECK (bytes >= 0),
    sha256    text NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, epoch, claim_id, step)
);
COMMENT ON TABLE job_checkpoints IS 'Checkpoints to go on from, the last few of each job; the objects of others are garbage.';
COMMENT ON COLUMN job_checkpoints.epoch IS 'Of the attempt that took it; a later attempt''s checkpoint is newer, whatever its step.';
COMMENT ON COLUMN job_checkpoints.key IS 'Of the object: projects/{project}/jobs/{job}/checkpoints/{epoch}-{claim}/{step}.';

INSERT INTO job_checkpoints (job_id, epoch, claim_id, step, key, bytes, sha256)
SELECT id, part[1]::bigint, part[2]::uuid, (checkpoint ->> 'step')::bigint,
    checkpoint ->> 'key', (checkpoint ->> 'bytes')::bigint, checkpoint ->> 'sha256'
FROM (
    SELECT id, checkpoint,
        regexp_match(checkpoint ->> 'key', '/checkpoints/([0-9]+)-([0-9a-f-]{36})/') AS part
    FROM jobs
) j
WHERE part IS NOT NULL;

ALTER TABLE jobs DROP COLUMN checkpoint;

-- ---------------------------------------------------------------- chores

CREATE TABLE maintenance (
    name            text PRIMARY KEY,
    last_started_at timestamptz NOT NULL
);
COMMENT ON TABLE maintenance IS 'Chores that one process does now and then: who moves the time on is the one.';

INSERT INTO maintenance (name, last_started_at) VALUES ('sweep', 'epoch'), ('upkeep', 'epoch');

INSERT INTO settings (key, value) VALUES ('oldest_binary', '2');
COMMENT ON TABLE settings IS 'Values that all processes on this database share; oldest_binary is the lowest migration that a binary must know.';
