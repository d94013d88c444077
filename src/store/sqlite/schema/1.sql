-- Dates are milliseconds since 1970 in UTC, durations milliseconds. Words are those of the API.

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
