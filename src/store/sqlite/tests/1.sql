
CREATE TABLE workspace (
    id                  TEXT PRIMARY KEY,
    origin              TEXT NOT NULL,      -- api, config, discovered
    driver              TEXT NOT NULL,
    project             TEXT,
    spec                TEXT,               -- JSON; NULL: told afresh at every start
    policy              TEXT NOT NULL,      -- JSON
    created_at          INTEGER NOT NULL,
    phase               TEXT NOT NULL,
    tier                TEXT,
    since               INTEGER NOT NULL,
    last_active         INTEGER,
    intent              TEXT,               -- what the driver was about to be told
    stopped_by_admin_at INTEGER,
    failure             TEXT
) STRICT;

-- No reference to workspace: a journal outlives its workspace.
CREATE TABLE journal (
    line      INTEGER PRIMARY KEY,          -- in order of writing
    workspace TEXT NOT NULL,
    at        INTEGER NOT NULL,
    phase     TEXT NOT NULL,
    tier      TEXT,
    reason    TEXT NOT NULL,
    took      INTEGER
) STRICT;

CREATE INDEX journal_of_workspace ON journal (workspace);

CREATE TABLE token (
    name       TEXT PRIMARY KEY,
    hash       BLOB NOT NULL,
    scope      TEXT NOT NULL,               -- JSON
    created_at INTEGER NOT NULL
) STRICT;

PRAGMA user_version = 1;

INSERT INTO workspace VALUES (
    'alice', 'api', 'docker', 'web',
    '{"runs":{"image":{"image":"a:1","unknown":{"x":1}}},"port":80,"unknown":[1]}',
    '{"hold_max":1500,"unknown":true}',
    1790000000123, 'frozen', 'stopped', 1790000001000, 1790000000500, NULL, NULL, NULL
);
INSERT INTO journal VALUES (
    1, 'alice', (unixepoch() * 1000), 'frozen', 'stopped', 'idle for 15m', 420
);
INSERT INTO token VALUES (
    'ci', x'abababababababababababababababababababababababababababababababab', '"read"', 1790000000000
);
