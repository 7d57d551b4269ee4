-- Checkpoints of known jobs that nothing needs. What a job that is done forgets goes under the lock
-- of its row, so that a retry either finds its checkpoints or has none listed.
WITH asked AS (
    SELECT DISTINCT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::bigint[])
        AS c (job_id, epoch, claim_id, step)
), done AS MATERIALIZED (
    SELECT id FROM jobs
    WHERE id IN (SELECT job_id FROM asked)
      AND (result IS NOT NULL OR finished_at < clock_timestamp() - make_interval(secs => $5))
    FOR NO KEY UPDATE SKIP LOCKED
), forgotten AS (
    DELETE FROM job_checkpoints c USING done WHERE c.job_id = done.id
)
SELECT c.job_id AS "job_id!", c.epoch AS "epoch!", c.claim_id AS "claim_id!", c.step AS "step!"
FROM asked c
JOIN jobs j ON j.id = c.job_id
WHERE j.id IN (SELECT id FROM done)
   OR (
    NOT EXISTS (
        SELECT FROM job_checkpoints k
        WHERE k.job_id = c.job_id AND k.epoch = c.epoch AND k.claim_id = c.claim_id AND k.step = c.step)
    AND NOT EXISTS (
        SELECT FROM job_leases l
        WHERE l.job_id = c.job_id AND l.state = 'running' AND l.epoch = c.epoch AND l.claim_id = c.claim_id))
