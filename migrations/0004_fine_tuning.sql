-- Trainings that start from a version: while such a job is unfinished, the version cannot be deleted.

COMMENT ON COLUMN jobs.model_version_id IS 'Of a deploy job: the version it deploys. Of a train job: the version it starts from, if any.';
