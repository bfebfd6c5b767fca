-- Rowcast's changelog, in the watched database itself. `rowcast remove` takes it off again.
--
-- The triggers write raw key values into untyped columns and call no function, so that no
-- program's own INSERT, UPDATE or DELETE can fail because of them. AUTOINCREMENT keeps ids
-- growing after rows were trimmed: `sqlite_sequence` is the source's present.
CREATE TABLE IF NOT EXISTS _rowcast_changelog (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tbl,                                    -- the table; of a mark, a random text
    op,                                     -- i insert, u update, d delete, r reload, m mark
    k1, k2, k3, k4, k5, k6, k7, k8,         -- the key after
    o1, o2, o3, o4, o5, o6, o7, o8          -- the key before
);
CREATE TABLE IF NOT EXISTS _rowcast_meta (
    name TEXT PRIMARY KEY,                  -- source: the name of this history; mark: the last mark
    value
);
