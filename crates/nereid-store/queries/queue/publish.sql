-- A version of the model that job $1 trains, and the model with its first one. A deleted model of
-- that name is revived: its numbers go on.
WITH model AS (
    INSERT INTO models AS m (id, project_id, name, next_version)
    SELECT $2, $3, j.model, 2 FROM jobs j WHERE j.id = $1
    ON CONFLICT (project_id, name) DO UPDATE SET
        next_version = m.next_version + 1,
        description = CASE WHEN m.deleted_at IS NULL THEN m.description ELSE '' END,
        tags = CASE WHEN m.deleted_at IS NULL THEN m.tags ELSE '{}' END,
        require_approval = m.deleted_at IS NULL AND m.require_approval,
        created_at = CASE WHEN m.deleted_at IS NULL THEN m.created_at ELSE now() END,
        deleted_at = NULL
    RETURNING id, name, next_version - 1 AS version
), version AS (
    INSERT INTO model_versions (
        id, model_id, version, job_id, manifest_uri, manifest_sha256, bytes, spec, signature,
        metrics, reports, lineage)
    SELECT $4, id, version, $1, $5, $6, $7, $8, $9, $10, $11, $12 FROM model
)
SELECT name AS model, version AS "version!" FROM model
