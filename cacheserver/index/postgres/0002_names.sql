-- Names beside paths, and blobs that live without a name.

ALTER TABLE caches ALTER COLUMN name DROP NOT NULL; -- NULL: it was removed, and what it holds goes by and by
ALTER TABLE caches ALTER COLUMN secret_key TYPE text[] USING ARRAY[secret_key];
ALTER TABLE caches RENAME COLUMN secret_key TO secret_keys; -- the newest first
-- -1 is as the server's policy says. 90 days is what every cache was made with.
UPDATE caches SET retention = -1 WHERE retention = 7776000;
ALTER TABLE caches ADD COLUMN public boolean NOT NULL DEFAULT true;
ALTER TABLE caches ALTER COLUMN public DROP DEFAULT;
ALTER TABLE caches ADD COLUMN upstream_keys text[] NOT NULL DEFAULT '{cache.nixos.org-1}'; -- names
ALTER TABLE caches ALTER COLUMN upstream_keys DROP DEFAULT;

-- Each statement that adds a path locks its cache and sees that it was not
-- removed. To check it once more, the server would read all paths when a cache
-- goes.
ALTER TABLE paths DROP CONSTRAINT paths_cache_fkey;
ALTER TABLE paths ADD COLUMN build_time bigint NOT NULL DEFAULT 0; -- nanoseconds; 0 is unknown
ALTER TABLE paths ADD COLUMN pushed_by text NOT NULL DEFAULT '';
-- Only for statements that ask for cache + 0, as paths_by_use.
CREATE INDEX paths_by_name ON paths ((cache + 0), name COLLATE "C", hash);
CREATE INDEX paths_by_creation ON paths ((cache + 0), created, id);

CREATE INDEX blobs_by_expiry ON blobs (expires, id);

CREATE TABLE objects (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cache        bigint NOT NULL,     -- as that of a path
    blob         bigint NOT NULL REFERENCES blobs (id),
    used         bigint NOT NULL,
    expires      bigint NOT NULL,     -- 0 is never
    name         text COLLATE "C" NOT NULL,
    content_type text   NOT NULL,
    UNIQUE (name, cache)
) WITH (fillfactor = 90);
CREATE INDEX objects_by_blob ON objects (blob);
CREATE INDEX objects_by_cache ON objects ((cache + 0));

CREATE TABLE actions (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    used     bigint NOT NULL,
    digest   bytea  NOT NULL,
    instance text COLLATE "C" NOT NULL,
    result   bytea  NOT NULL,
    UNIQUE (digest, instance)
) WITH (fillfactor = 90);

-- Digests of blobs by other functions than SHA-256.
CREATE TABLE aliases (
    blob     bigint NOT NULL REFERENCES blobs (id) ON DELETE CASCADE,
    size     bigint NOT NULL,
    hash     bytea  NOT NULL,
    function text COLLATE "C" NOT NULL,
    PRIMARY KEY (hash, size, function)
);
CREATE INDEX aliases_by_blob ON aliases (blob);

CREATE TABLE samples (
    at    bigint NOT NULL,
    value double precision NOT NULL,
    name  text COLLATE "C" NOT NULL,
    PRIMARY KEY (name, at)
);
