-- What decides how long an image is kept, and when it is proven again.
ALTER TABLE images ADD COLUMN pinned_at  INTEGER;                          -- Unix milliseconds; null: it is not pinned
ALTER TABLE images ADD COLUMN used_at    INTEGER NOT NULL DEFAULT 0;       -- Unix milliseconds of the last use that was put down
ALTER TABLE images ADD COLUMN proven_at  INTEGER;                          -- Unix milliseconds of the last proof; null unless verified
ALTER TABLE images ADD COLUMN disk_bytes INTEGER CHECK (disk_bytes >= 0);  -- bytes of the published tree on disk; null until measured
ALTER TABLE images ADD COLUMN priority   INTEGER NOT NULL DEFAULT 0;       -- higher ones are received first

UPDATE images SET used_at = coalesce(verified_at, created_at), proven_at = verified_at;
