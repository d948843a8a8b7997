-- Where functions went on the network; a reason says that they were refused.
CREATE TABLE egress (
    function_id TEXT NOT NULL REFERENCES entity (id) ON DELETE CASCADE,
    host TEXT NOT NULL,
    port BIGINT NOT NULL,
    reason TEXT NOT NULL,
    count BIGINT NOT NULL,
    first BIGINT NOT NULL,
    last BIGINT NOT NULL,
    PRIMARY KEY (function_id, host, port, reason)
);
