-- Versions of project $1 for which all conditions hold, in order, after position ($10, $11).
--
-- A condition is a row of $2 to $6: field, key, comparator, and a number or a text. The order is by
-- field $7 (of key $8), descending if $9; what lacks the field comes last. What a client wrote is
-- compared with, and never becomes part of this statement.
SELECT v.id, o.key AS "key!"
FROM model_versions v
JOIN models m ON m.id = v.model_id
CROSS JOIN LATERAL (
    SELECT CASE $7::text
        WHEN 'metric' THEN (v.metrics ->> $8::text)::double precision
        WHEN 'version' THEN v.version::double precision
        WHEN 'bytes' THEN v.bytes::double precision
        WHEN 'created_at' THEN (extract(epoch FROM v.created_at) * 1000000)::double precision
        WHEN 'dataset_version' THEN (v.lineage ->> 'dataset_version')::double precision
    END AS value
) f
CROSS JOIN LATERAL (
    SELECT COALESCE(CASE WHEN $9::boolean THEN -f.value ELSE f.value END, 'Infinity') AS key
) o
WHERE m.project_id = $1
  AND m.deleted_at IS NULL
  AND v.deleted_at IS NULL
  AND ($10::double precision IS NULL OR (o.key, v.id) > ($10, $11::uuid))
  AND NOT EXISTS (
    SELECT
    FROM unnest($2::text[], $3::text[], $4::text[], $5::double precision[], $6::text[])
        AS c (field, key, comparator, number, word)
    CROSS JOIN LATERAL (
        SELECT CASE c.field
            WHEN 'metric' THEN (v.metrics ->> c.key)::double precision
            WHEN 'version' THEN v.version::double precision
            WHEN 'bytes' THEN v.bytes::double precision
            WHEN 'created_at' THEN (extract(epoch FROM v.created_at) * 1000000)::double precision
            WHEN 'dataset_version' THEN (v.lineage ->> 'dataset_version')::double precision
        END AS number,
        CASE c.field
            WHEN 'tag' THEN v.tags ->> c.key
            WHEN 'model' THEN m.name
            WHEN 'approval' THEN v.approval_status
            WHEN 'dataset' THEN v.lineage ->> 'dataset'
            WHEN 'job' THEN v.job_id::text
        END AS word
    ) is_
    WHERE NOT COALESCE(
        CASE
            -- A version may have several: one must fit, or none be equal.
            WHEN c.field = 'alias' THEN (c.comparator <> '!=') = EXISTS (
                SELECT FROM model_aliases a
                WHERE a.model_version_id = v.id AND CASE c.comparator
                    WHEN 'like' THEN a.alias LIKE c.word ESCAPE ''
                    WHEN 'ilike' THEN a.alias ILIKE c.word ESCAPE ''
                    ELSE a.alias = c.word
                END)
            ELSE CASE c.comparator
                WHEN '=' THEN is_.number = c.number OR is_.word = c.word
                WHEN '!=' THEN is_.number <> c.number OR is_.word <> c.word
                WHEN '<' THEN is_.number < c.number
                WHEN '<=' THEN is_.number <= c.number
                WHEN '>' THEN is_.number > c.number
                WHEN '>=' THEN is_.number >= c.number
                WHEN 'like' THEN is_.word LIKE c.word ESCAPE ''
                WHEN 'ilike' THEN is_.word ILIKE c.word ESCAPE ''
            END
        END, false)
  )
ORDER BY o.key, v.id
LIMIT $12
