-- Makes the dataset, updates it, or revives a deleted one, whose version numbers go on.
INSERT INTO datasets AS d (id, project_id, name, description, tags)
VALUES ($1, $2, $3, COALESCE($4::text, ''), $5)
ON CONFLICT (project_id, name) DO UPDATE SET
    description = CASE WHEN d.deleted_at IS NULL THEN COALESCE($4, d.description) ELSE COALESCE($4, '') END,
    tags = CASE WHEN d.deleted_at IS NULL THEN d.tags || excluded.tags ELSE excluded.tags END,
    created_at = CASE WHEN d.deleted_at IS NULL THEN d.created_at ELSE now() END,
    deleted_at = NULL
RETURNING d.id
