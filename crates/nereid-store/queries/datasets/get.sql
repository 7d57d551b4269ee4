SELECT
    d.id, d.name, d.description, d.tags, d.created_at,
    v.id AS version_id, v.version, v.source, v.files, v.digest, v.schema, v.statistics,
    v.created_at AS version_created_at
FROM datasets d
CROSS JOIN LATERAL (
    SELECT * FROM dataset_versions
    WHERE dataset_id = d.id AND deleted_at IS NULL ORDER BY version DESC LIMIT 1
) v
WHERE d.project_id = $1 AND d.name = $2 AND d.deleted_at IS NULL
