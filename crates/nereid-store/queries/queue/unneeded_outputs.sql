-- Attempts of known jobs that are not current and below whose prefix no version has a file. Its own
-- version is found by the job; the one that a deployment made fit for serving, by the job's spec.
SELECT DISTINCT f.job_id AS "job_id!", f.epoch AS "epoch!", f.claim_id AS "claim_id!"
FROM unnest($1::uuid[], $2::bigint[], $3::uuid[]) AS f (job_id, epoch, claim_id)
JOIN jobs j ON j.id = f.job_id
WHERE NOT EXISTS (
    SELECT FROM job_leases l
    WHERE l.job_id = f.job_id AND l.state = 'running' AND l.epoch = f.epoch AND l.claim_id = f.claim_id
) AND NOT EXISTS (
    SELECT FROM model_versions v
    WHERE (v.job_id = j.id OR v.id = j.model_version_id)
      AND (
        strpos(v.manifest_uri, format('/%s/%s-%s/', f.job_id, f.epoch, f.claim_id)) > 0
        OR strpos((v.serving ->> 'prefix') || '/', format('/%s/%s-%s/', f.job_id, f.epoch, f.claim_id)) > 0))
AND NOT EXISTS (
    -- What generations of endpoints serve stays, even when the version was deployed anew since.
    SELECT FROM endpoint_variants v JOIN endpoints e ON e.id = v.endpoint_id
    WHERE v.model_version_id = j.model_version_id AND e.deleted_at IS NULL
      AND strpos((v.artifact ->> 'prefix') || '/', format('/%s/%s-%s/', f.job_id, f.epoch, f.claim_id)) > 0)
AND NOT EXISTS (
    -- A batch prediction that has not ended goes on with the model that it began with.
    SELECT FROM jobs b JOIN batch_predictions p ON p.job_id = b.id
    WHERE b.project_id = j.project_id AND b.model = j.model AND b.finished_at IS NULL
      AND strpos((p.plan #>> '{serving,prefix}') || '/', format('/%s/%s-%s/', f.job_id, f.epoch, f.claim_id)) > 0)
