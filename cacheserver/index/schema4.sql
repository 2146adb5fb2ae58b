-- When this index was made, in nanoseconds; no row in one that was made before
-- this was kept.
CREATE TABLE began (at INTEGER NOT NULL);
