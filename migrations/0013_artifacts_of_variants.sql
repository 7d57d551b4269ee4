-- What a variant serves is fixed when its generation is made: deploying the version again, with other
-- weights or for another runtime, must not change what older generations load, nor take their files.

ALTER TABLE endpoint_variants ADD COLUMN artifact jsonb;
UPDATE endpoint_variants v SET artifact = m.serving FROM model_versions m WHERE m.id = v.model_version_id;
COMMENT ON COLUMN endpoint_variants.artifact IS 'Copy of the version''s serving artifact when the generation was made (ServingArtifact).';
