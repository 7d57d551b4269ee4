-- First schema of Nereid. Migrations only go forward: what this file says is never edited once
-- released, later files add to it. Times are the database's unless a comment says otherwise;
-- identifiers are UUIDv7 drawn by the process that inserts, so they sort by creation.

-- ---------------------------------------------------------------- projects, keys, settings

-- Postgres has uuidv7() from version 18 on; until then: 48 bits of milliseconds, version 7, random rest.
CREATE FUNCTION uuid_v7() RETURNS uuid
    LANGUAGE sql VOLATILE PARALLEL SAFE
    RETURN encode(
        set_bit(set_bit(
            overlay(
                uuid_send(gen_random_uuid())
                PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                FROM 1 FOR 6
            ), 52, 1), 53, 1),
        'hex'
    )::uuid;
COMMENT ON FUNCTION uuid_v7() IS 'Draws a UUIDv7 (RFC 9562), which sorts by time.';

CREATE TABLE projects (
    id         uuid PRIMARY KEY DEFAULT uuid_v7(),
    name       text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE projects IS 'Unit of isolation, quota and fairness; everything else belongs to one.';

INSERT INTO projects (name) VALUES ('default');

CREATE TABLE api_keys (
    id            uuid PRIMARY KEY,
    project_id    uuid NOT NULL REFERENCES projects,
    name          text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    role          text NOT NULL CHECK (role IN ('viewer', 'trainer', 'deployer', 'admin')),
    prefix        text NOT NULL,
    secret_sha256 bytea NOT NULL UNIQUE CHECK (octet_length(secret_sha256) = 32),
    created_at    timestamptz NOT NULL DEFAULT now(),
    revoked_at    timestamptz
);
CREATE UNIQUE INDEX api_keys_name ON api_keys (project_id, name) WHERE revoked_at IS NULL;
COMMENT ON TABLE api_keys IS 'API keys; a revoked one frees its name and stays for the audit log.';
COMMENT ON COLUMN api_keys.prefix IS 'First 12 characters of the secret, to recognise it by.';
COMMENT ON COLUMN api_keys.secret_sha256 IS 'Hash of the whole secret, which has 256 random bits, so no salt is needed.';

CREATE TABLE settings (
    key   text PRIMARY KEY,
    value text NOT NULL
);
COMMENT ON TABLE settings IS 'Values that all processes on this database share.';

-- Two version 4 UUIDs hold 244 bits from Postgres' strong random source.
INSERT INTO settings (key, value)
VALUES ('cluster_secret', replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''));

CREATE TABLE idempotency_keys (
    project_id  uuid NOT NULL REFERENCES projects,
    key         text NOT NULL,
    fingerprint bytea NOT NULL,
    status      integer NOT NULL,
    body        json NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, key)
);
CREATE INDEX idempotency_keys_created_at ON idempotency_keys USING brin (created_at);
COMMENT ON TABLE idempotency_keys IS 'Responses of answered requests, committed together with what the request changed.';
COMMENT ON COLUMN idempotency_keys.fingerprint IS 'SHA-256 over method, path, query and body.';
COMMENT ON COLUMN idempotency_keys.body IS 'json, not jsonb: replayed as it was first sent.';
COMMENT ON COLUMN idempotency_keys.created_at IS 'Rows may be deleted once they are older than the documented replay window.';

CREATE TABLE audit_log (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id uuid NOT NULL REFERENCES projects,
    actor      uuid REFERENCES api_keys,
    action     text NOT NULL,
    resource   text NOT NULL,
    at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_log_project ON audit_log (project_id, id);
COMMENT ON TABLE audit_log IS 'Who changed what; written in the transaction of the change.';
COMMENT ON COLUMN audit_log.actor IS 'The key used; NULL for the anonymous administrator of dev and for the command line.';
COMMENT ON COLUMN audit_log.resource IS 'Kind and name or id, for example endpoint/digits.';

-- ---------------------------------------------------------------- datasets

CREATE TABLE datasets (
    id           uuid PRIMARY KEY,
    project_id   uuid NOT NULL REFERENCES projects,
    name         text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    description  text NOT NULL DEFAULT '',
    tags         jsonb NOT NULL DEFAULT '{}',
    next_version integer NOT NULL DEFAULT 1 CHECK (next_version >= 1),
    created_at   timestamptz NOT NULL DEFAULT now(),
    deleted_at   timestamptz,
    UNIQUE (project_id, name)
);
COMMENT ON TABLE datasets IS 'Named datasets, parents of their versions.';
COMMENT ON COLUMN datasets.next_version IS 'Outlives deletion, so that name@version never means two things.';
COMMENT ON COLUMN datasets.deleted_at IS 'Soft delete; registering the name again revives the row.';

CREATE TABLE dataset_versions (
    id         uuid PRIMARY KEY,
    dataset_id uuid NOT NULL REFERENCES datasets,
    version    integer NOT NULL CHECK (version >= 1),
    source     jsonb NOT NULL,
    files      jsonb NOT NULL,
    digest     text NOT NULL,
    schema     jsonb NOT NULL,
    statistics jsonb NOT NULL,
    preview    jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    UNIQUE (dataset_id, version)
);
CREATE UNIQUE INDEX dataset_versions_digest ON dataset_versions (dataset_id, digest) WHERE deleted_at IS NULL;
COMMENT ON TABLE dataset_versions IS 'Immutable versions of datasets; only deleted_at ever changes.';
COMMENT ON COLUMN dataset_versions.source IS 'What the client declared (DatasetSource).';
COMMENT ON COLUMN dataset_versions.files IS 'The files by role, pinned to size, SHA-256 and entity tag.';
COMMENT ON COLUMN dataset_versions.digest IS 'SHA-256 over the declaration and the digests of the files.';
COMMENT ON COLUMN dataset_versions.preview IS 'The first rows, kept out of every listing.';

-- ---------------------------------------------------------------- models

CREATE TABLE models (
    id           uuid PRIMARY KEY,
    project_id   uuid NOT NULL REFERENCES projects,
    name         text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    description  text NOT NULL DEFAULT '',
    tags         jsonb NOT NULL DEFAULT '{}',
    next_version integer NOT NULL DEFAULT 1 CHECK (next_version >= 1),
    created_at   timestamptz NOT NULL DEFAULT now(),
    deleted_at   timestamptz,
    UNIQUE (project_id, name)
);
COMMENT ON TABLE models IS 'Registered models, parents of their versions.';
COMMENT ON COLUMN models.next_version IS 'Outlives deletion, so that numbers are never given out again.';
COMMENT ON COLUMN models.deleted_at IS 'Soft delete; publishing under the name again revives the row.';

-- job_id gets its foreign key below: jobs and model versions refer to each other.
CREATE TABLE model_versions (
    id              uuid PRIMARY KEY,
    model_id        uuid NOT NULL REFERENCES models,
    version         integer NOT NULL CHECK (version >= 1),
    job_id          uuid NOT NULL UNIQUE,
    manifest_uri    text NOT NULL,
    manifest_sha256 text NOT NULL,
    bytes           bigint NOT NULL CHECK (bytes >= 0),
    spec            jsonb NOT NULL,
    signature       jsonb NOT NULL,
    metrics         jsonb NOT NULL,
    reports         jsonb NOT NULL,
    lineage         jsonb NOT NULL,
    tags            jsonb NOT NULL DEFAULT '{}',
    serving         jsonb,
    created_at      timestamptz NOT NULL DEFAULT now(),
    deleted_at      timestamptz,
    UNIQUE (model_id, version)
);
COMMENT ON TABLE model_versions IS 'Published versions of models; only tags, serving and deleted_at ever change.';
COMMENT ON COLUMN model_versions.job_id IS 'Unique: a job publishes at most once, whatever its attempts do.';
COMMENT ON COLUMN model_versions.lineage IS 'A copy, so that it survives the deletion of the dataset.';
COMMENT ON COLUMN model_versions.serving IS 'The artifact made for serving (ServingArtifact); NULL until first deployed.';

-- ---------------------------------------------------------------- workers

CREATE TABLE workers (
    id           uuid PRIMARY KEY,
    host         text NOT NULL,
    device       text NOT NULL CHECK (device IN ('cpu', 'gpu')),
    labels       jsonb NOT NULL DEFAULT '{}',
    slots        integer NOT NULL CHECK (slots >= 0),
    url          text NOT NULL,
    version      text NOT NULL,
    status       text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'draining', 'gone')),
    started_at   timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    retired_at   timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE workers IS 'Worker processes; a restarted process is another worker.';
COMMENT ON COLUMN workers.heartbeat_at IS 'Not indexed, as no changing column is: heartbeats stay HOT updates.';
COMMENT ON COLUMN workers.expires_at IS 'End of the worker''s lease; silent beyond it, it is marked gone.';
COMMENT ON COLUMN workers.retired_at IS 'Set when the worker left in good order; one that was merely silent may come back.';

-- ---------------------------------------------------------------- jobs

CREATE TABLE jobs (
    id                 uuid PRIMARY KEY,
    project_id         uuid NOT NULL REFERENCES projects,
    kind               text NOT NULL CHECK (kind IN ('train', 'deploy')),
    spec_version       integer NOT NULL,
    spec               jsonb NOT NULL,
    model              text NOT NULL,
    model_version_id   uuid REFERENCES model_versions,
    dataset_version_id uuid REFERENCES dataset_versions,
    labels             jsonb NOT NULL DEFAULT '{}',
    priority           integer NOT NULL CHECK (priority BETWEEN 0 AND 100),
    max_attempts       integer NOT NULL CHECK (max_attempts >= 1),
    status             text NOT NULL CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'stopped')),
    phase              text CHECK (phase IN ('starting', 'downloading', 'training', 'evaluating', 'optimising', 'uploading', 'warming')),
    stop_requested     boolean NOT NULL DEFAULT false,
    attempts           integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    epoch              bigint NOT NULL DEFAULT 0,
    progress           jsonb,
    result             jsonb,
    error              jsonb,
    termination_reason text CHECK (termination_reason IN ('completed', 'cancelled', 'invalid_input', 'diverged', 'parity_failed', 'unavailable', 'internal', 'lease_lost', 'worker_drained')),
    checkpoint         jsonb,
    last_event_seq     bigint NOT NULL DEFAULT 0,
    created_at         timestamptz NOT NULL DEFAULT now(),
    started_at         timestamptz,
    finished_at        timestamptz,
    CHECK ((phase IS NOT NULL) = (status = 'running')),
    CHECK ((finished_at IS NOT NULL) = (status IN ('succeeded', 'failed', 'stopped'))),
    CHECK ((termination_reason IS NOT NULL) = (finished_at IS NOT NULL))
) WITH (fillfactor = 80);
CREATE INDEX jobs_project ON jobs (project_id, id);
CREATE INDEX jobs_unfinished ON jobs (project_id, model) WHERE status IN ('queued', 'running');
COMMENT ON TABLE jobs IS 'Jobs, cold: spec and state. What changes with each heartbeat is in job_leases.';
COMMENT ON COLUMN jobs.spec_version IS 'Format of spec, for readers of old rows.';
COMMENT ON COLUMN jobs.model IS 'Name of the model that is trained or deployed.';
COMMENT ON COLUMN jobs.model_version_id IS 'Of a deploy job: the version it deploys.';
COMMENT ON COLUMN jobs.dataset_version_id IS 'Of a train job: the training data; all its inputs are in job_inputs.';
COMMENT ON COLUMN jobs.attempts IS 'Attempts used up, counted when they end; a drained attempt is given back.';
COMMENT ON COLUMN jobs.epoch IS 'Epoch of the newest claim; goes on rising when the job is retried and its lease row is new.';
COMMENT ON COLUMN jobs.checkpoint IS 'Newest checkpoint of any attempt (CheckpointRef).';
COMMENT ON COLUMN jobs.last_event_seq IS 'Raised under the row lock, so that event numbers have no gaps.';

ALTER TABLE model_versions ADD FOREIGN KEY (job_id) REFERENCES jobs;

CREATE TABLE job_inputs (
    job_id             uuid NOT NULL REFERENCES jobs,
    dataset_version_id uuid NOT NULL REFERENCES dataset_versions,
    PRIMARY KEY (job_id, dataset_version_id)
);
CREATE INDEX job_inputs_dataset ON job_inputs (dataset_version_id);
COMMENT ON TABLE job_inputs IS 'Dataset versions that a job reads: training, validation and test data.';

CREATE TABLE job_leases (
    job_id         uuid PRIMARY KEY REFERENCES jobs,
    project_id     uuid NOT NULL REFERENCES projects,
    kind           text NOT NULL CHECK (kind IN ('train', 'deploy')),
    state          text NOT NULL CHECK (state IN ('queued', 'running')),
    sort_key       timestamptz NOT NULL,
    available_at   timestamptz NOT NULL,
    device         text CHECK (device IN ('cpu', 'gpu')),
    labels         jsonb NOT NULL DEFAULT '{}',
    epoch          bigint NOT NULL,
    claim_id       uuid,
    worker_id      uuid REFERENCES workers,
    expires_at     timestamptz,
    stop_requested boolean NOT NULL DEFAULT false,
    CHECK (num_nonnulls(claim_id, worker_id, expires_at) = CASE state WHEN 'running' THEN 3 ELSE 0 END)
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 200,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.05
);
CREATE INDEX job_leases_claim ON job_leases (project_id, sort_key, job_id) WHERE state = 'queued';
CREATE INDEX job_leases_running ON job_leases (worker_id, project_id) WHERE state = 'running';
COMMENT ON TABLE job_leases IS 'The queue, narrow and hot: one row per job that waits or runs. Every transition locks this row before the job''s.';
COMMENT ON COLUMN job_leases.sort_key IS 'Time of queueing less ten minutes per priority step: ages without being rewritten.';
COMMENT ON COLUMN job_leases.available_at IS 'Not claimed before; set by a retry''s backoff.';
COMMENT ON COLUMN job_leases.device IS 'Device the job needs; NULL for any.';
COMMENT ON COLUMN job_leases.labels IS 'Labels a worker must have.';
COMMENT ON COLUMN job_leases.epoch IS 'Raised by each claim, never reset.';
COMMENT ON COLUMN job_leases.claim_id IS 'Drawn by each claim: an epoch may be given out again after a failover.';
COMMENT ON COLUMN job_leases.expires_at IS 'On purpose in no index, so that heartbeats stay HOT updates.';
COMMENT ON COLUMN job_leases.stop_requested IS 'Copy of the job''s, so that a heartbeat reads this table only.';

CREATE TABLE job_attempts (
    job_id     uuid NOT NULL REFERENCES jobs,
    epoch      bigint NOT NULL,
    claim_id   uuid NOT NULL,
    worker_id  uuid NOT NULL REFERENCES workers,
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz,
    reason     text CHECK (reason IN ('completed', 'cancelled', 'invalid_input', 'diverged', 'parity_failed', 'unavailable', 'internal', 'lease_lost', 'worker_drained')),
    message    text,
    PRIMARY KEY (job_id, epoch),
    CHECK ((ended_at IS NULL) = (reason IS NULL))
);
COMMENT ON TABLE job_attempts IS 'One row per claim of a job.';

-- The append-only tables have no foreign key to jobs: each write is made under the lock of the
-- job's row or lease, jobs are never deleted, and the check would cost a lock per line.

CREATE TABLE job_events (
    job_id uuid NOT NULL,
    seq    bigint NOT NULL CHECK (seq >= 1),
    kind   text NOT NULL CHECK (kind IN ('submitted', 'status_changed', 'phase_changed', 'progress', 'stop_requested', 'checkpointed', 'published')),
    data   jsonb NOT NULL,
    at     timestamptz NOT NULL,
    PRIMARY KEY (job_id, seq, at)
) PARTITION BY RANGE (at);
CREATE TABLE job_events_default PARTITION OF job_events DEFAULT;
COMMENT ON TABLE job_events IS 'What happened to jobs, append-only, in the transaction in which it happened; by month.';
COMMENT ON COLUMN job_events.seq IS 'From 1 without gaps within the job (jobs.last_event_seq).';
COMMENT ON TABLE job_events_default IS 'Safety net for months without a partition.';

CREATE TABLE job_logs (
    job_id    uuid NOT NULL,
    seq       bigint NOT NULL CHECK (seq >= 1),
    epoch     bigint NOT NULL,
    level     text NOT NULL CHECK (level IN ('debug', 'info', 'warn', 'error')),
    message   text NOT NULL,
    at        timestamptz NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, seq, stored_at)
) PARTITION BY RANGE (stored_at);
CREATE TABLE job_logs_default PARTITION OF job_logs DEFAULT;
COMMENT ON TABLE job_logs IS 'Log lines of jobs, append-only; by month.';
COMMENT ON COLUMN job_logs.at IS 'By the worker''s clock, therefore not what partitions go by.';
COMMENT ON TABLE job_logs_default IS 'Safety net for months without a partition.';

CREATE TABLE job_metrics (
    job_id   uuid NOT NULL,
    step     bigint NOT NULL CHECK (step >= 0),
    epoch    double precision NOT NULL,
    "values" jsonb NOT NULL,
    at       timestamptz NOT NULL,
    PRIMARY KEY (job_id, step)
) PARTITION BY HASH (job_id);
CREATE TABLE job_metrics_0 PARTITION OF job_metrics FOR VALUES WITH (MODULUS 8, REMAINDER 0);
CREATE TABLE job_metrics_1 PARTITION OF job_metrics FOR VALUES WITH (MODULUS 8, REMAINDER 1);
CREATE TABLE job_metrics_2 PARTITION OF job_metrics FOR VALUES WITH (MODULUS 8, REMAINDER 2);
CREATE TABLE job_metrics_3 PARTITION OF job_metrics FOR VALUES WITH (MODULUS 8, REMAINDER 3);
CREATE TABLE job_metrics_4 PARTITION OF job_metrics FOR VALUES WITH (MODULUS 8, REMAINDER 4);
CREATE TABLE job_metrics_5 PARTITION OF job_metrics FOR VALUES WITH (MODULUS 8, REMAINDER 5);
CREATE TABLE job_metrics_6 PARTITION OF job_metrics FOR VALUES WITH (MODULUS 8, REMAINDER 6);
CREATE TABLE job_metrics_7 PARTITION OF job_metrics FOR VALUES WITH (MODULUS 8, REMAINDER 7);
COMMENT ON TABLE job_metrics IS 'Metrics by step. By hash and not by month: a resumed attempt repeats steps, and only without the time in the key can the database keep each step once.';
COMMENT ON COLUMN job_metrics.at IS 'By the worker''s clock.';

CREATE FUNCTION ensure_partitions(months_ahead integer DEFAULT 3) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    month  timestamptz;
    child  text;
BEGIN
    -- Several processes may start at once.
    PERFORM pg_advisory_xact_lock(hashtextextended('nereid:ensure_partitions', 0));
    FOREACH parent IN ARRAY ARRAY['job_events', 'job_logs'] LOOP
        FOR i IN 0..months_ahead LOOP
            month := (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => i)) AT TIME ZONE 'UTC';
            child := parent || to_char(month AT TIME ZONE 'UTC', '"_"YYYY"_"MM');
            CONTINUE WHEN to_regclass(child) IS NOT NULL;
            BEGIN
                -- Made apart and attached: CREATE … PARTITION OF would lock out all readers.
                EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent);
                EXECUTE format(
                    'ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, child, month,
                    (month AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC');
            EXCEPTION WHEN check_violation THEN
                -- Rows of that month are in the default partition already, and may stay there.
                RAISE WARNING 'no partition %: its rows are in %_default', child, parent;
            END;
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON FUNCTION ensure_partitions IS 'Makes the partitions of this month and the next ones; harmless when called again.';

-- ---------------------------------------------------------------- endpoints

CREATE TABLE endpoints (
    id                 uuid PRIMARY KEY,
    project_id         uuid NOT NULL REFERENCES projects,
    name               text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    status             text NOT NULL CHECK (status IN ('creating', 'updating', 'in_service', 'failed')),
    generation         integer NOT NULL CHECK (generation >= 1),
    serving_generation integer CHECK (serving_generation <= generation),
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    deleted_at         timestamptz
);
CREATE UNIQUE INDEX endpoints_name ON endpoints (project_id, name) WHERE deleted_at IS NULL;
COMMENT ON TABLE endpoints IS 'Inference endpoints: desired state, toward which workers reconcile. Whoever changes replicas of an endpoint for others than himself locks this row.';
COMMENT ON COLUMN endpoints.generation IS 'Newest generation of variants.';
COMMENT ON COLUMN endpoints.serving_generation IS 'Generation that answers requests; NULL until one was ready.';
COMMENT ON COLUMN endpoints.updated_at IS 'When the newest generation was made.';
COMMENT ON COLUMN endpoints.deleted_at IS 'Soft delete, which frees the name; workers then drain the replicas.';

CREATE TABLE endpoint_generations (
    endpoint_id uuid NOT NULL REFERENCES endpoints,
    generation  integer NOT NULL CHECK (generation >= 1),
    job_id      uuid UNIQUE REFERENCES jobs,
    created_at  timestamptz NOT NULL DEFAULT now(),
    served_at   timestamptz,
    PRIMARY KEY (endpoint_id, generation)
);
COMMENT ON TABLE endpoint_generations IS 'Generations of endpoints; each update, roll-out and rollback makes one.';
COMMENT ON COLUMN endpoint_generations.job_id IS 'Deploy job that made it. Unique: a second attempt finds the generation of the first.';
COMMENT ON COLUMN endpoint_generations.served_at IS 'When it first got traffic; a rollback goes back to one that did.';

CREATE TABLE endpoint_variants (
    id               uuid PRIMARY KEY,
    endpoint_id      uuid NOT NULL,
    generation       integer NOT NULL,
    position         integer NOT NULL CHECK (position >= 0),
    name             text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    model_version_id uuid NOT NULL REFERENCES model_versions,
    weight           integer NOT NULL CHECK (weight BETWEEN 0 AND 1000),
    replicas         integer NOT NULL CHECK (replicas BETWEEN 1 AND 64),
    FOREIGN KEY (endpoint_id, generation) REFERENCES endpoint_generations,
    UNIQUE (endpoint_id, generation, name)
);
CREATE INDEX endpoint_variants_model_version ON endpoint_variants (model_version_id);
COMMENT ON TABLE endpoint_variants IS 'Variants of each generation; immutable.';
COMMENT ON COLUMN endpoint_variants.position IS 'Order in which the client named them.';
COMMENT ON COLUMN endpoint_variants.replicas IS 'Copies to keep loaded.';

CREATE TABLE replicas (
    id         uuid PRIMARY KEY,
    variant_id uuid NOT NULL REFERENCES endpoint_variants,
    worker_id  uuid NOT NULL REFERENCES workers,
    status     text NOT NULL CHECK (status IN ('loading', 'ready', 'draining', 'failed')),
    error      text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX replicas_variant ON replicas (variant_id);
CREATE INDEX replicas_worker ON replicas (worker_id);
COMMENT ON TABLE replicas IS 'Copies of variants'' models that workers hold or are to hold. A failed one stays and keeps its worker from trying again.';
