-- Endpoints whose replicas a client has let go of, without giving up the endpoint itself.

ALTER TABLE endpoints ADD COLUMN unloaded_at timestamptz;
COMMENT ON COLUMN endpoints.unloaded_at IS 'Since when a client wants no replicas of it (the model repository''s unload); NULL once it is loaded, updated, rolled back or deployed again.';
