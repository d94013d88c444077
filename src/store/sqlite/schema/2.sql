ALTER TABLE workspace ADD COLUMN
    reported_activity INTEGER NOT NULL DEFAULT 0; -- whether its last check-in said that it is active
