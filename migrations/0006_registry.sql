-- The registry: aliases, approval, descriptions of versions, and an audit log that says what changed.

ALTER TABLE models ADD COLUMN require_approval boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN models.require_approval IS 'Whether only approved versions may be deployed or get traffic.';

ALTER TABLE model_versions
    ADD COLUMN description     text NOT NULL DEFAULT '',
    ADD COLUMN approval_status text NOT NULL DEFAULT 'pending' CHECK (approval_status IN ('pending', 'approved', 'rejected')),
    ADD COLUMN approval_reason text NOT NULL DEFAULT '',
    ADD COLUMN approval_by     uuid REFERENCES api_keys,
    ADD COLUMN approval_at     timestamptz;
COMMENT ON TABLE model_versions IS 'Published versions of models; only description, tags, approval, serving and deleted_at ever change.';
COMMENT ON COLUMN model_versions.approval_by IS 'Key that decided last; NULL for the anonymous administrator of dev.';
COMMENT ON COLUMN model_versions.approval_at IS 'When that was; NULL while nobody has. Earlier decisions are in the audit log.';

CREATE TABLE model_aliases (
    model_id         uuid NOT NULL REFERENCES models,
    alias            text NOT NULL CHECK (alias ~ '^[a-z0-9][a-z0-9._-]{0,62}$' AND alias <> 'latest' AND alias !~ '^v?[0-9]+$'),
    model_version_id uuid NOT NULL REFERENCES model_versions,
    updated_by       uuid REFERENCES api_keys,
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (model_id, alias)
);
CREATE INDEX model_aliases_version ON model_aliases (model_version_id);
COMMENT ON TABLE model_aliases IS 'Names that point to one version of a model each. Whoever changes one locks the row of its model, then the version.';
COMMENT ON COLUMN model_aliases.alias IS 'Never a number, so that name@3 and name@champion cannot be mistaken for each other.';

CREATE TABLE model_alias_changes (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_id        uuid NOT NULL REFERENCES models,
    alias           text NOT NULL,
    action          text NOT NULL CHECK (action IN ('set', 'promote', 'demote', 'delete')),
    from_version_id uuid REFERENCES model_versions,
    to_version_id   uuid REFERENCES model_versions,
    undone          boolean NOT NULL DEFAULT false,
    actor           uuid REFERENCES api_keys,
    at              timestamptz NOT NULL DEFAULT now(),
    CHECK ((to_version_id IS NULL) = (action = 'delete'))
);
CREATE INDEX model_alias_changes_alias ON model_alias_changes (model_id, alias, id);
COMMENT ON TABLE model_alias_changes IS 'History of aliases, append-only but for undone: what has been set or promoted and not undone is the stack that demotions take from.';
COMMENT ON COLUMN model_alias_changes.undone IS 'Whether a demotion went back on it, or the alias has been deleted since.';

ALTER TABLE audit_log ADD COLUMN detail text;
COMMENT ON COLUMN audit_log.detail IS 'What was changed, or the reason given for it.';

-- For the log of one resource and what is below it.
CREATE INDEX audit_log_resource ON audit_log (project_id, resource text_pattern_ops);
