-- Times are microseconds since 1970, JSON is TEXT, truth is 0 or 1.

CREATE TABLE counter (
    name TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
-- The number of the last change, and of the last one that was pruned.
INSERT INTO counter (name, value) VALUES ('change', 0), ('pruned', 0);

CREATE TABLE change (
    seq BIGINT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    org TEXT NOT NULL,
    name TEXT NOT NULL,
    op TEXT NOT NULL,
    revision BIGINT NOT NULL
);

CREATE TABLE entity (
    kind TEXT NOT NULL,
    org TEXT NOT NULL,
    name TEXT COLLATE {bytewise} NOT NULL,
    project TEXT NOT NULL,
    id TEXT NOT NULL UNIQUE,
    revision BIGINT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT NOT NULL,
    created BIGINT NOT NULL,
    modified BIGINT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, org, name)
);

CREATE TABLE revision (
    faas_id TEXT NOT NULL PRIMARY KEY,
    function_id TEXT NOT NULL REFERENCES entity (id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    serving BIGINT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT NOT NULL,
    created BIGINT NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (function_id, number)
);

CREATE TABLE run (
    id TEXT COLLATE {bytewise} NOT NULL PRIMARY KEY,
    org TEXT NOT NULL,
    function TEXT NOT NULL,
    function_id TEXT NOT NULL REFERENCES entity (id) ON DELETE CASCADE,
    faas_id TEXT NOT NULL,
    status TEXT NOT NULL,
    created BIGINT NOT NULL,
    modified BIGINT NOT NULL,
    finished BIGINT,
    attempts BIGINT NOT NULL,
    dead BIGINT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX run_newest ON run (org, created, id);
CREATE INDEX run_modified ON run (org, modified);
CREATE INDEX run_of_function ON run (function_id, created, id);
CREATE INDEX run_finished ON run (function_id, finished);

CREATE TABLE job (
    id {auto_id},
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    org TEXT NOT NULL,
    payload TEXT NOT NULL,
    -- When it is wanted.
    run_at BIGINT NOT NULL,
    -- When it may be claimed: run_at, or the end of the lease while somebody works on it.
    due BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    -- Counts enqueues and claims: whoever ends a job proves with it that the job is still theirs.
    generation BIGINT NOT NULL,
    -- Who works on it, or nobody, and the generation it was claimed with.
    owner TEXT NOT NULL,
    lease BIGINT NOT NULL,
    dead BIGINT NOT NULL,
    error TEXT NOT NULL,
    UNIQUE (org, key, kind)
);
CREATE INDEX job_due ON job (kind, due, id) WHERE dead = 0;
