-- How variants serve (batching, hedging) and how generations roll out, as their clients asked for.

ALTER TABLE endpoint_variants ADD COLUMN settings jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN endpoint_variants.settings IS 'How its replicas and the gateway serve it; what is absent has its default.';

ALTER TABLE endpoint_generations ADD COLUMN settings jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN endpoint_generations.settings IS 'How traffic shifts to it; what is absent has its default.';
