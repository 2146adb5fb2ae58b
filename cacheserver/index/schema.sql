-- Version 1. A later version is a new file that alters this one's tables.
CREATE TABLE packs (
    id      INTEGER PRIMARY KEY,
    name    TEXT    NOT NULL UNIQUE,
    size    INTEGER NOT NULL,
    created INTEGER NOT NULL          -- Unix seconds
);

CREATE TABLE chunks (
    id     INTEGER PRIMARY KEY,
    hash   BLOB    NOT NULL UNIQUE,   -- SHA-256 of the uncompressed bytes
    size   INTEGER NOT NULL,          -- uncompressed
    pack   INTEGER NOT NULL REFERENCES packs (id),
    offset INTEGER NOT NULL,          -- of the frame in the pack
    length INTEGER NOT NULL           -- of the frame
);

CREATE TABLE blobs (
    id        INTEGER PRIMARY KEY,
    hash      BLOB    NOT NULL,
    size      INTEGER NOT NULL,
    file_hash BLOB    NOT NULL,       -- of the frames, end to end
    file_size INTEGER NOT NULL,
    created   INTEGER NOT NULL,
    UNIQUE (hash, size)
);

CREATE TABLE blob_chunks (
    blob  INTEGER NOT NULL REFERENCES blobs (id),
    seq   INTEGER NOT NULL,
    chunk INTEGER NOT NULL REFERENCES chunks (id),
    PRIMARY KEY (blob, seq)
) WITHOUT ROWID;

CREATE TABLE caches (
    id         INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    store_dir  TEXT    NOT NULL,
    priority   INTEGER NOT NULL,
    secret_key TEXT    NOT NULL,
    created    INTEGER NOT NULL
);

CREATE TABLE paths (
    cache      INTEGER NOT NULL REFERENCES caches (id),
    hash       TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    nar        INTEGER NOT NULL REFERENCES blobs (id),
    refs       TEXT    NOT NULL,      -- base names, separated by spaces
    deriver    TEXT    NOT NULL,
    signatures TEXT    NOT NULL,      -- separated by spaces
    ca         TEXT    NOT NULL,
    created    INTEGER NOT NULL,
    PRIMARY KEY (cache, hash)
) WITHOUT ROWID;

CREATE INDEX paths_by_nar ON paths (nar, cache);
