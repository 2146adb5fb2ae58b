CREATE TABLE packs (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    size    bigint NOT NULL,
    dead    bigint NOT NULL,          -- bytes of frames in which no chunk lies
    created bigint NOT NULL,          -- Unix seconds, as all times here
    name    text COLLATE "C" NOT NULL UNIQUE
);

-- Room is left in each page for the new row that every touch writes.
CREATE TABLE chunks (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pack    bigint NOT NULL REFERENCES packs (id),
    start   bigint NOT NULL,          -- of the frame in the pack
    length  bigint NOT NULL,          -- of the frame
    size    bigint NOT NULL,          -- uncompressed
    touched bigint NOT NULL,
    hash    bytea  NOT NULL UNIQUE    -- SHA-256 of the uncompressed bytes
) WITH (fillfactor = 90);
CREATE INDEX chunks_by_pack ON chunks (pack);

CREATE TABLE blobs (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    size      bigint NOT NULL,
    file_size bigint NOT NULL,
    created   bigint NOT NULL,
    expires   bigint NOT NULL,        -- it lives until then without a name
    hash      bytea  NOT NULL,
    file_hash bytea  NOT NULL,        -- of the frames, end to end
    UNIQUE (hash, size)
);

CREATE TABLE blob_chunks (
    blob  bigint  NOT NULL REFERENCES blobs (id),
    chunk bigint  NOT NULL REFERENCES chunks (id),
    seq   integer NOT NULL,
    PRIMARY KEY (blob, seq)
);
CREATE INDEX blob_chunks_by_chunk ON blob_chunks (chunk);

CREATE TABLE caches (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    retention  bigint  NOT NULL,      -- seconds; 0 is for ever
    created    bigint  NOT NULL,
    priority   integer NOT NULL,
    name       text COLLATE "C" NOT NULL UNIQUE,
    store_dir  text    NOT NULL,
    secret_key text    NOT NULL
);

CREATE TABLE paths (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cache      bigint NOT NULL REFERENCES caches (id),
    nar        bigint NOT NULL REFERENCES blobs (id),
    created    bigint NOT NULL,
    used       bigint NOT NULL,
    hash       text COLLATE "C" NOT NULL,
    name       text   NOT NULL,
    refs       text[] NOT NULL,       -- base names
    deriver    text   NOT NULL,
    signatures text[] NOT NULL,
    ca         text   NOT NULL,
    UNIQUE (hash, cache)
);
CREATE INDEX paths_by_nar ON paths (nar, cache);
-- Only for statements that ask for cache + 0: until the planner has statistics, it
-- would take an index that begins with the cache for any path of it, and walk
-- through all of them.
CREATE INDEX paths_by_use ON paths ((cache + 0), used, hash);

-- Which paths of a cache refer to a hash, whether the cache holds a path of
-- that hash or not. No path is here for itself.
CREATE TABLE referrers (
    cache bigint NOT NULL,
    path  bigint NOT NULL REFERENCES paths (id) ON DELETE CASCADE, -- the one that refers
    hash  text COLLATE "C" NOT NULL,
    PRIMARY KEY (cache, hash, path)
);
CREATE INDEX referrers_by_path ON referrers (path);

CREATE TABLE pins (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- grows with each revision
    cache   bigint NOT NULL REFERENCES caches (id),
    path    bigint NOT NULL REFERENCES paths (id),
    created bigint NOT NULL,
    expires bigint NOT NULL,          -- 0 is never
    name    text COLLATE "C" NOT NULL
);
CREATE INDEX pins_by_name ON pins (cache, name, id);
CREATE INDEX pins_by_path ON pins (path);
