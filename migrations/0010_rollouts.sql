-- Rollouts with shares of the traffic, autoscaling, what gateways measure of variants, and the
-- events of endpoints.

CREATE TABLE endpoint_rollouts (
    endpoint_id     uuid NOT NULL,
    generation      integer NOT NULL,
    from_generation integer,
    status          text NOT NULL CHECK (status IN ('warming', 'shifting', 'baking', 'completed', 'rolled_back', 'superseded')),
    share           integer NOT NULL DEFAULT 0 CHECK (share BETWEEN 0 AND 100),
    due_at          timestamptz,
    reason          text,
    started_at      timestamptz NOT NULL DEFAULT now(),
    changed_at      timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz,
    PRIMARY KEY (endpoint_id, generation),
    FOREIGN KEY (endpoint_id, generation) REFERENCES endpoint_generations,
    CHECK ((finished_at IS NOT NULL) = (status IN ('completed', 'rolled_back', 'superseded')))
);
-- At most one rollout of an endpoint is under way.
CREATE UNIQUE INDEX endpoint_rollouts_active ON endpoint_rollouts (endpoint_id)
    WHERE status IN ('warming', 'shifting', 'baking');
COMMENT ON TABLE endpoint_rollouts IS 'How traffic went over to each generation.';
COMMENT ON COLUMN endpoint_rollouts.from_generation IS 'Generation that served before; NULL for the first.';
COMMENT ON COLUMN endpoint_rollouts.share IS 'Per cent of the traffic that the generation gets.';
COMMENT ON COLUMN endpoint_rollouts.due_at IS 'When the present state ends.';

INSERT INTO endpoint_rollouts (endpoint_id, generation, from_generation, status)
SELECT id, generation, serving_generation, 'warming' FROM endpoints
WHERE deleted_at IS NULL AND serving_generation IS DISTINCT FROM generation;

CREATE TABLE variant_scaling (
    variant_id   uuid PRIMARY KEY REFERENCES endpoint_variants,
    desired      integer NOT NULL CHECK (desired BETWEEN 0 AND 64),
    memory       jsonb NOT NULL DEFAULT '{}',
    held_at      timestamptz,
    evaluated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE variant_scaling IS 'Replicas wanted of variants that scale by themselves; those without a row have their fixed number.';
COMMENT ON COLUMN variant_scaling.memory IS 'What the controller remembers between two looks.';
COMMENT ON COLUMN variant_scaling.held_at IS 'When a request last waited for the first replica.';

CREATE TABLE variant_windows (
    variant_id      uuid NOT NULL,
    process_id      uuid NOT NULL,
    at              timestamptz NOT NULL DEFAULT now(),
    requests        bigint NOT NULL CHECK (requests >= 0),
    errors          bigint NOT NULL CHECK (errors >= 0),
    rejected        bigint NOT NULL CHECK (rejected >= 0),
    latency_us      bigint NOT NULL CHECK (latency_us >= 0),
    queue_us        bigint NOT NULL CHECK (queue_us >= 0),
    latency_buckets bigint[] NOT NULL,
    scores          bigint NOT NULL CHECK (scores >= 0),
    score_sum       double precision NOT NULL,
    score_squares   double precision NOT NULL,
    mirrored        bigint NOT NULL CHECK (mirrored >= 0),
    mismatched      bigint NOT NULL CHECK (mismatched >= 0),
    PRIMARY KEY (variant_id, at, process_id)
);
CREATE INDEX variant_windows_at ON variant_windows USING brin (at);
COMMENT ON TABLE variant_windows IS 'What each gateway measured of each variant with traffic, a row for every second or two; kept for an hour.';
COMMENT ON COLUMN variant_windows.at IS 'End of the window.';
COMMENT ON COLUMN variant_windows.latency_us IS 'Sum over the requests.';
COMMENT ON COLUMN variant_windows.latency_buckets IS 'Requests by latency, in the fixed buckets of nereid-core.';

ALTER TABLE endpoints ADD COLUMN last_event_seq bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN endpoints.last_event_seq IS 'Raised under the row lock, so that event numbers have no gaps.';

CREATE TABLE endpoint_events (
    endpoint_id uuid NOT NULL REFERENCES endpoints,
    seq         bigint NOT NULL CHECK (seq >= 1),
    kind        text NOT NULL,
    data        jsonb NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (endpoint_id, seq)
);
COMMENT ON TABLE endpoint_events IS 'What happened to endpoints, and why; append-only, in the transaction in which it happened.';
