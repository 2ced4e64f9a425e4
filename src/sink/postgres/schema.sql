-- What the first version of the schema is.
CREATE TABLE analytics_event_log (
    source         text        NOT NULL,
    -- Where it stands in the log of the gateways: what makes it unique.
    position_ms    bigint      NOT NULL,
    position_n     bigint      NOT NULL,
    -- '$seen' = somebody was here, nothing more.
    event_name     text        NOT NULL,
    user_id        bigint,
    install_id     text,
    event_time     timestamptz NOT NULL,
    received_at    timestamptz NOT NULL,
    event_id       text,
    province       text,
    city           text,
    properties     jsonb,
    -- Where PostgreSQL does not take them as jsonb.
    properties_raw text,
    PRIMARY KEY (source, position_ms, position_n)
);
CREATE INDEX analytics_event_log_by_time ON analytics_event_log (event_time);
CREATE INDEX analytics_event_log_by_name ON analytics_event_log (event_name, event_time);

CREATE TABLE analytics_daily_active_users (
    source       text        NOT NULL,
    day          date        NOT NULL,
    -- 'total', 'province' or 'city'; of the first, `place` is empty.
    grouping     text        NOT NULL,
    place        text        NOT NULL,
    users        bigint      NOT NULL,
    is_estimated boolean     NOT NULL,
    version      bigint      NOT NULL,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, day, grouping, place)
);

CREATE TABLE analytics_online_snapshots (
    source text        NOT NULL,
    ts     timestamptz NOT NULL,
    online bigint      NOT NULL,
    PRIMARY KEY (source, ts)
);

-- How far the log was copied; moved in the transaction that copies.
CREATE TABLE analytics_sink_cursors (
    source      text   PRIMARY KEY,
    position_ms bigint NOT NULL,
    position_n  bigint NOT NULL
);
