-- Batch predictions: jobs that answer the rows of files, part by part.

ALTER TABLE jobs
    DROP CONSTRAINT jobs_kind_check,
    DROP CONSTRAINT jobs_phase_check,
    ADD CONSTRAINT jobs_kind_check CHECK (kind IN ('train', 'deploy', 'batch_predict', 'noop')),
    ADD CONSTRAINT jobs_phase_check CHECK (phase IN (
        'starting', 'downloading', 'training', 'evaluating', 'optimising', 'uploading', 'predicting', 'warming'));

ALTER TABLE job_leases
    DROP CONSTRAINT job_leases_kind_check,
    ADD CONSTRAINT job_leases_kind_check CHECK (kind IN ('train', 'deploy', 'batch_predict', 'noop'));

CREATE TABLE batch_predictions (
    job_id     uuid PRIMARY KEY REFERENCES jobs,
    plan       jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE batch_predictions IS 'Batch predictions that an attempt has begun.';
COMMENT ON COLUMN batch_predictions.plan IS 'What all attempts share (BatchPlan): the pinned input and the model''s files.';

CREATE TABLE batch_prediction_parts (
    job_id      uuid NOT NULL REFERENCES batch_predictions,
    part        integer NOT NULL CHECK (part >= 0),
    epoch       bigint NOT NULL,
    rows        bigint NOT NULL CHECK (rows > 0),
    rejected    bigint NOT NULL CHECK (rejected BETWEEN 0 AND rows),
    seconds     double precision NOT NULL CHECK (seconds >= 0),
    detail      jsonb NOT NULL,
    finished_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, part)
);
COMMENT ON TABLE batch_prediction_parts IS 'Finished parts, each written under the fence of its attempt; the next attempt goes on behind the last.';
COMMENT ON COLUMN batch_prediction_parts.part IS 'From 0, without gaps.';
COMMENT ON COLUMN batch_prediction_parts.epoch IS 'Epoch of the attempt that wrote it.';
COMMENT ON COLUMN batch_prediction_parts.rows IS 'Rows read, rejected ones included.';
COMMENT ON COLUMN batch_prediction_parts.detail IS 'Files with sizes and digests (BatchPart).';
