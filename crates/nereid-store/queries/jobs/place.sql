-- Where the waiting job $1 stands among those that some worker could take which could take it, too
-- ($2 devices and $3 labels of such workers), in the order of queue/claim.sql: turns, then sort
-- keys. Its own turn is its rank within its project plus what that runs; of another project, jobs
-- count up to the one with the same turn, so no more of them are looked at. Of its own at most $4:
-- whoever looks at a job in a queue of a million must not make Postgres count them.
WITH me AS (
    SELECT l.*, j.queued_at FROM job_leases l JOIN jobs j ON j.id = l.job_id
    WHERE l.job_id = $1 AND l.state = 'queued'
), takers AS (
    SELECT * FROM unnest($2::text[], $3::jsonb[]) AS t (device, labels)
), busy AS (
    SELECT project_id, count(*) AS running FROM job_leases WHERE state = 'running' GROUP BY project_id
), mine AS (
    SELECT me.job_id, 1 + COALESCE(b.running, 0) + (
        SELECT count(*) FROM (
            SELECT FROM job_leases l
            WHERE l.project_id = me.project_id AND l.state = 'queued'
              AND (l.sort_key, l.job_id) < (me.sort_key, me.job_id)
              AND l.available_at <= statement_timestamp()
              AND CASE WHEN cardinality($2) = 0
                  THEN l.device IS NOT DISTINCT FROM me.device AND l.labels = me.labels
                  -- Most jobs ask for nothing, and are counted without a look at the workers.
                  ELSE l.device IS NULL AND l.labels = '{}' OR EXISTS (
                      SELECT FROM takers t
                      WHERE (l.device IS NULL OR l.device = t.device) AND t.labels @> l.labels)
                  END
            LIMIT $4
        ) ahead
    ) AS turn, COALESCE(b.running, 0) AS running
    FROM me LEFT JOIN busy b USING (project_id)
)
SELECT
    me.queued_at, me.available_at, me.gives_up_at, statement_timestamp() AS "now!",
    (mine.turn - mine.running + COALESCE((
        SELECT count(*)
        FROM projects p
        LEFT JOIN busy b ON b.project_id = p.id
        CROSS JOIN LATERAL (
            SELECT q.sort_key, q.job_id, COALESCE(b.running, 0) + row_number() OVER (ORDER BY q.sort_key, q.job_id) AS turn
            FROM (
                SELECT l.sort_key, l.job_id
                FROM job_leases l
                WHERE l.project_id = p.id AND l.state = 'queued'
                  AND l.available_at <= statement_timestamp()
                  AND CASE WHEN cardinality($2) = 0
                      THEN l.device IS NOT DISTINCT FROM me.device AND l.labels = me.labels
                      ELSE l.device IS NULL AND l.labels = '{}' OR EXISTS (
                          SELECT FROM takers t
                          WHERE (l.device IS NULL OR l.device = t.device) AND t.labels @> l.labels)
                      END
                ORDER BY l.sort_key, l.job_id
                LIMIT greatest(mine.turn - COALESCE(b.running, 0), 0)
            ) q
        ) o
        WHERE p.id <> me.project_id
          AND (o.turn, o.sort_key, o.job_id) < (mine.turn, me.sort_key, me.job_id)
    ), 0)) AS "position!"
FROM me JOIN mine USING (job_id)
