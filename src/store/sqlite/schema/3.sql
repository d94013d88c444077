ALTER TABLE workspace ADD COLUMN kept_until INTEGER;   -- until when an admin wants it awake
ALTER TABLE workspace ADD COLUMN memory_saved INTEGER; -- bytes that it used right before it was stopped

-- How it went, a row every minute.
CREATE TABLE history (
    at           INTEGER PRIMARY KEY,
    running      INTEGER NOT NULL,
    frozen       INTEGER NOT NULL,
    memory_saved INTEGER NOT NULL
) STRICT;
