-- The embedded bus, format 1: one history of events in one file.
CREATE TABLE IF NOT EXISTS event (
    offset INTEGER PRIMARY KEY,             -- from 1, without holes
    id TEXT NOT NULL,                       -- the event's id, for repeated publishing
    change INTEGER NOT NULL,                -- 1: from a change producer, 0: from an application
    at_ms INTEGER NOT NULL,                 -- when it was stored
    body TEXT NOT NULL                      -- CloudEvents JSON
);
-- Parts of a transaction whose last part is missing; they get their offsets with it.
CREATE TABLE IF NOT EXISTS part (
    n INTEGER PRIMARY KEY,                  -- from 1, without holes
    id TEXT NOT NULL,
    change INTEGER NOT NULL,
    body TEXT NOT NULL
);
-- Ids of applications' events, within the duplicate window.
CREATE TABLE IF NOT EXISTS recent (
    id TEXT PRIMARY KEY,
    offset INTEGER NOT NULL,
    at_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fact (
    name TEXT PRIMARY KEY,                  -- epoch, last, bytes, checkpoint; open: how far parts reach
    value NOT NULL
) WITHOUT ROWID;
-- What was revoked, for the next start; no part of the history.
CREATE TABLE IF NOT EXISTS revoked (
    n INTEGER PRIMARY KEY,
    at_ns INTEGER NOT NULL,                 -- when it was said, Unix nanoseconds
    until_ms INTEGER NOT NULL,              -- when no token is left that it could concern
    body TEXT NOT NULL                      -- {"sub":…} or {"jti":…}
);
CREATE INDEX IF NOT EXISTS revoked_until ON revoked (until_ms);
