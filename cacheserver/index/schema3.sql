-- Version 3: names beside paths, and blobs that live without a name.

-- AUTOINCREMENT: a server may still hold the number of a cache that was removed,
-- and must not find another's paths under it.
CREATE TABLE new_caches (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    name          TEXT    UNIQUE,     -- NULL: it was removed, and what it holds goes by and by
    store_dir     TEXT    NOT NULL,
    priority      INTEGER NOT NULL,
    secret_keys   TEXT    NOT NULL,   -- the newest first, separated by spaces
    created       INTEGER NOT NULL,
    retention     INTEGER NOT NULL,   -- seconds; 0 is for ever, -1 is as the server's policy says
    public        INTEGER NOT NULL,
    upstream_keys TEXT    NOT NULL    -- names, separated by spaces
);
-- 90 days is what every cache was made with.
INSERT INTO new_caches (id, name, store_dir, priority, secret_keys, created, retention, public, upstream_keys)
    SELECT id, name, store_dir, priority, secret_key, created, iif(retention = 7776000, -1, retention), 1, 'cache.nixos.org-1'
    FROM caches;
DROP TABLE caches;
ALTER TABLE new_caches RENAME TO caches;

ALTER TABLE paths ADD COLUMN pushed_by TEXT NOT NULL DEFAULT '';
ALTER TABLE paths ADD COLUMN build_time INTEGER NOT NULL DEFAULT 0; -- nanoseconds; 0 is unknown
CREATE INDEX paths_by_name ON paths (cache, name, hash);
CREATE INDEX paths_by_creation ON paths (cache, created);

CREATE INDEX blobs_by_expiry ON blobs (expires);

CREATE TABLE objects (
    id           INTEGER PRIMARY KEY,
    cache        INTEGER NOT NULL REFERENCES caches (id),
    name         TEXT    NOT NULL,
    content_type TEXT    NOT NULL,
    blob         INTEGER NOT NULL REFERENCES blobs (id),
    used         INTEGER NOT NULL,    -- Unix seconds, as all times here
    expires      INTEGER NOT NULL     -- 0 is never
);
CREATE UNIQUE INDEX objects_by_name ON objects (cache, name);
CREATE INDEX objects_by_blob ON objects (blob);

-- The result is last: a sweep does not read it.
CREATE TABLE actions (
    id       INTEGER PRIMARY KEY,
    instance TEXT    NOT NULL,
    digest   BLOB    NOT NULL,
    used     INTEGER NOT NULL,
    result   BLOB    NOT NULL,
    UNIQUE (digest, instance)
);

-- Digests of blobs by other functions than SHA-256.
CREATE TABLE aliases (
    hash     BLOB    NOT NULL,
    size     INTEGER NOT NULL,
    function TEXT    NOT NULL,
    blob     INTEGER NOT NULL REFERENCES blobs (id),
    PRIMARY KEY (hash, size, function)
) WITHOUT ROWID;
CREATE INDEX aliases_by_blob ON aliases (blob);

CREATE TABLE samples (
    name  TEXT    NOT NULL,
    at    INTEGER NOT NULL,
    value REAL    NOT NULL,
    PRIMARY KEY (name, at)
) WITHOUT ROWID;
