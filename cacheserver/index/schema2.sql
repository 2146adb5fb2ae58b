-- Version 2: what collection asks for.

ALTER TABLE packs ADD COLUMN dead INTEGER NOT NULL DEFAULT 0; -- bytes of frames in which no chunk lies
-- Version 1 did not count them. A pack has 60 bytes of its own and 41 for each
-- entry; that of a dead frame cannot be told from the frame and counts as dead.
UPDATE packs SET dead = max(0, size - 60 - (SELECT coalesce(sum(length + 41), 0) FROM chunks WHERE pack = packs.id));

ALTER TABLE chunks ADD COLUMN touched INTEGER NOT NULL DEFAULT 0; -- Unix seconds
UPDATE chunks SET touched = unixepoch();
CREATE INDEX chunks_by_pack ON chunks (pack, offset);

CREATE INDEX blob_chunks_by_chunk ON blob_chunks (chunk);

-- AUTOINCREMENT: a reader may still hold the number of a blob that was removed,
-- and must not find another's bytes under it.
CREATE TABLE new_blobs (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    hash      BLOB    NOT NULL,
    size      INTEGER NOT NULL,
    file_hash BLOB    NOT NULL,       -- of the frames, end to end
    file_size INTEGER NOT NULL,
    created   INTEGER NOT NULL,
    expires   INTEGER NOT NULL,       -- Unix seconds; it lives until then without a name
    UNIQUE (hash, size)
);
-- A blob of version 1 without a name is given a day to get one.
INSERT INTO new_blobs (id, hash, size, file_hash, file_size, created, expires)
    SELECT id, hash, size, file_hash, file_size, created, unixepoch() + 86400 FROM blobs;
DROP TABLE blobs;
ALTER TABLE new_blobs RENAME TO blobs;

ALTER TABLE caches ADD COLUMN retention INTEGER NOT NULL DEFAULT 7776000; -- seconds; 0 is for ever

CREATE TABLE new_paths (
    id         INTEGER PRIMARY KEY,
    cache      INTEGER NOT NULL REFERENCES caches (id),
    hash       TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    nar        INTEGER NOT NULL REFERENCES blobs (id),
    refs       TEXT    NOT NULL,      -- base names, separated by spaces
    deriver    TEXT    NOT NULL,
    signatures TEXT    NOT NULL,      -- separated by spaces
    ca         TEXT    NOT NULL,
    created    INTEGER NOT NULL,
    used       INTEGER NOT NULL       -- Unix seconds
);
INSERT INTO new_paths (cache, hash, name, nar, refs, deriver, signatures, ca, created, used)
    SELECT cache, hash, name, nar, refs, deriver, signatures, ca, created, unixepoch() FROM paths;
DROP TABLE paths;
ALTER TABLE new_paths RENAME TO paths;
CREATE UNIQUE INDEX paths_by_hash ON paths (cache, hash);
CREATE INDEX paths_by_nar ON paths (nar, cache);
CREATE INDEX paths_by_use ON paths (cache, used, hash);

-- Which paths of a cache refer to a hash, whether the cache holds a path of
-- that hash or not. No path is here for itself. It follows from paths.refs, and
-- a path's rows are found by them: a second index, to find them by the path,
-- would be as large as this table.
CREATE TABLE referrers (
    cache INTEGER NOT NULL,
    hash  TEXT    NOT NULL,
    path  INTEGER NOT NULL,           -- the one that refers
    PRIMARY KEY (cache, hash, path)
) WITHOUT ROWID;
INSERT OR IGNORE INTO referrers (cache, hash, path)
    SELECT p.cache, substr(r.value, 1, 32), p.id
    FROM paths p, json_each('[' || replace(json_quote(p.refs), ' ', '","') || ']') r
    WHERE p.refs <> '' AND substr(r.value, 1, 32) <> p.hash;

CREATE TABLE pins (
    id      INTEGER PRIMARY KEY,      -- grows with each revision
    cache   INTEGER NOT NULL REFERENCES caches (id),
    name    TEXT    NOT NULL,
    path    INTEGER NOT NULL REFERENCES paths (id),
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL          -- Unix seconds; 0 is never
);
CREATE INDEX pins_by_name ON pins (cache, name);
CREATE INDEX pins_by_path ON pins (path);
