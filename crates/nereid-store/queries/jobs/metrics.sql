-- Of T points, number floor(i (T - 1) / (L - 1)) for i = 0 … L - 1: evenly spread, first and last
-- included. Point n is one of them if the least i that does not fall short of it does not pass it.
SELECT step, epoch, "values", at
FROM (
    SELECT *, row_number() OVER (ORDER BY step) - 1 AS n, count(*) OVER () AS total
    FROM job_metrics WHERE job_id = $1
) p
WHERE total <= $2
   OR n = total - 1
   OR (n * ($2 - 1) + total - 2) / greatest(total - 1, 1) * (total - 1) < (n + 1) * ($2 - 1)
ORDER BY step
LIMIT $2
