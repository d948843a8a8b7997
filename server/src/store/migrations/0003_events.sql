-- The log of events, in the order in which they were accepted.
CREATE TABLE event (
    seq {auto_id},
    org TEXT NOT NULL,
    id TEXT NOT NULL,
    source TEXT NOT NULL,
    type TEXT NOT NULL,
    accepted BIGINT NOT NULL,
    -- How many deliveries led to it: replies to replies have more.
    hops BIGINT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX event_name ON event (org, id, source, accepted);
CREATE INDEX event_time ON event (org, accepted, seq);
-- Bytes of the log.
INSERT INTO counter (name, value) VALUES ('event_bytes', 0);

CREATE TABLE delivery (
    id {auto_id},
    subscription TEXT NOT NULL REFERENCES entity (id) ON DELETE CASCADE,
    event BIGINT NOT NULL REFERENCES event (seq) ON DELETE CASCADE,
    -- Deliveries with the same one, not empty, follow each other.
    ordering TEXT NOT NULL,
    -- 0 waits or is tried, 1 is blocked by an earlier one, 2 is delivered, 3 is dead.
    state BIGINT NOT NULL,
    -- 1 on the way to the dead letter target.
    stage BIGINT NOT NULL,
    -- When it may be claimed, or the end of the lease while somebody tries it.
    due BIGINT NOT NULL,
    owner TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    -- Counts claims: whoever ends a try proves with it that the delivery is still theirs.
    generation BIGINT NOT NULL,
    error TEXT NOT NULL,
    run TEXT NOT NULL,
    created BIGINT NOT NULL,
    modified BIGINT NOT NULL
);
CREATE INDEX delivery_open ON delivery (subscription, state, due, id) WHERE state <= 1;
CREATE INDEX delivery_order ON delivery (subscription, ordering, id) WHERE state <= 1 AND ordering <> '';
CREATE INDEX delivery_dead ON delivery (subscription, id) WHERE state = 3;
CREATE INDEX delivery_newest ON delivery (subscription, id);
CREATE INDEX delivery_of_event ON delivery (event);

-- What deliveries of a subscription came to.
CREATE TABLE progress (
    subscription TEXT NOT NULL PRIMARY KEY REFERENCES entity (id) ON DELETE CASCADE,
    delivered BIGINT NOT NULL,
    -- When the last one succeeded, or 0.
    last BIGINT NOT NULL,
    error TEXT NOT NULL
);
