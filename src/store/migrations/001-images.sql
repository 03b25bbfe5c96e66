-- The catalog: what this host knows of each image, the state that it is in, and why.
-- Times are Unix milliseconds, sizes are bytes, NAR hashes are the 32 bytes of the SHA-256.

-- One row for each image that the host holds, receives, wants or has refused.
CREATE TABLE images (
  nar_hash        BLOB    NOT NULL PRIMARY KEY CHECK (length(nar_hash) = 32),
  nar_size        INTEGER CHECK (nar_size >= 0),           -- bytes of the NAR; null until it is known
  name            TEXT    UNIQUE,                          -- the name that this host gives it
  store_path      TEXT,                                    -- full store path; two images may claim the same one
  deriver         TEXT,
  ca              TEXT,
  manifest_digest TEXT    CHECK (length(manifest_digest) = 64), -- BLAKE3 of the manifest, hex
  state           TEXT    NOT NULL CHECK (state IN ('wanted', 'receiving', 'quarantined', 'verified', 'rejected')),
  source          TEXT    NOT NULL CHECK (source IN ('import', 'fetch')),
  place           TEXT    NOT NULL CHECK (place IN ('content', 'nix-store')), -- where its tree is once it is verified
  reason          TEXT,                                    -- why it is in this state; null when verified
  note            TEXT,                                    -- for a person, for instance why Nix's metadata is absent
  created_at      INTEGER NOT NULL,                        -- Unix milliseconds
  verified_at     INTEGER,                                 -- Unix milliseconds
  CHECK ((state = 'verified') = (verified_at IS NOT NULL)),
  CHECK ((state = 'verified') = (reason IS NULL)),
  CHECK (state <> 'verified' OR nar_size IS NOT NULL),
  CHECK (state <> 'verified' OR place = 'content' OR store_path IS NOT NULL)
) STRICT, WITHOUT ROWID;

CREATE INDEX images_by_state ON images (state, created_at);
CREATE INDEX images_by_store_path ON images (store_path) WHERE store_path IS NOT NULL;

-- The store paths that an image refers to; by reference, so that the referrers of a path can be found.
CREATE TABLE image_references (
  nar_hash  BLOB NOT NULL REFERENCES images (nar_hash) ON DELETE CASCADE,
  reference TEXT NOT NULL,
  PRIMARY KEY (nar_hash, reference)
) STRICT, WITHOUT ROWID;

CREATE INDEX image_references_by_reference ON image_references (reference);

-- Nix signatures, in the order in which they were given.
CREATE TABLE image_signatures (
  nar_hash  BLOB    NOT NULL REFERENCES images (nar_hash) ON DELETE CASCADE,
  position  INTEGER NOT NULL,
  signature TEXT    NOT NULL,
  PRIMARY KEY (nar_hash, position)
) STRICT, WITHOUT ROWID;

-- Encoded manifests, apart from the images so that a list of images does not read them.
CREATE TABLE manifests (
  nar_hash BLOB NOT NULL PRIMARY KEY REFERENCES images (nar_hash) ON DELETE CASCADE,
  bytes    BLOB NOT NULL
) STRICT;

-- Every change of state there ever was. It outlives the image, and is only added to.
CREATE TABLE journal (
  id         INTEGER PRIMARY KEY,
  nar_hash   BLOB    NOT NULL CHECK (length(nar_hash) = 32),
  at         INTEGER NOT NULL,                             -- Unix milliseconds
  from_state TEXT,                                         -- null: there was no image
  event      TEXT    NOT NULL,
  to_state   TEXT,                                         -- null: there is no image any more
  reason     TEXT    NOT NULL,
  evidence   TEXT    CHECK (json_valid(evidence)),         -- JSON
  CHECK (
    CASE event
      WHEN 'create'    THEN from_state IS NULL          AND to_state IS 'wanted'
      WHEN 'start'     THEN from_state IS 'wanted'      AND to_state IS 'receiving'
      WHEN 'interrupt' THEN from_state IS 'receiving'   AND to_state IS 'wanted'
      WHEN 'complete'  THEN from_state IS 'receiving'   AND to_state IS 'quarantined'
      WHEN 'pass'      THEN from_state IS 'quarantined' AND to_state IS 'verified'
      WHEN 'fail'      THEN from_state IS 'quarantined' AND to_state IS 'rejected'
      WHEN 'damage'    THEN from_state IS 'verified'    AND to_state IS 'quarantined'
      WHEN 'retry'     THEN from_state IS 'rejected'    AND to_state IS 'wanted'
      WHEN 'remove'    THEN from_state IS NOT NULL      AND to_state IS NULL
      ELSE 0
    END
  )
) STRICT;

CREATE INDEX journal_by_image ON journal (nar_hash, id);

CREATE TRIGGER journal_is_not_changed BEFORE UPDATE ON journal
BEGIN
  SELECT RAISE(ABORT, 'the journal is only added to');
END;

CREATE TRIGGER journal_is_not_cut BEFORE DELETE ON journal
BEGIN
  SELECT RAISE(ABORT, 'the journal is only added to');
END;

-- A state appears, changes and goes only together with the journal entry that explains it.
CREATE TRIGGER images_begin_in_the_journal BEFORE INSERT ON images
WHEN NOT EXISTS (
  SELECT 1 FROM journal
  WHERE id = (SELECT max(id) FROM journal WHERE nar_hash = NEW.nar_hash) AND event = 'create' AND to_state = NEW.state
)
BEGIN
  SELECT RAISE(ABORT, 'an image is created only with its journal entry');
END;

CREATE TRIGGER images_change_in_the_journal BEFORE UPDATE OF nar_hash, state ON images
WHEN NOT EXISTS (
  SELECT 1 FROM journal
  WHERE id = (SELECT max(id) FROM journal WHERE nar_hash = OLD.nar_hash)
    AND NEW.nar_hash = OLD.nar_hash AND from_state = OLD.state AND to_state = NEW.state
)
BEGIN
  SELECT RAISE(ABORT, 'a state changes only with its journal entry');
END;

CREATE TRIGGER images_end_in_the_journal BEFORE DELETE ON images
WHEN NOT EXISTS (
  SELECT 1 FROM journal
  WHERE id = (SELECT max(id) FROM journal WHERE nar_hash = OLD.nar_hash) AND event = 'remove' AND from_state = OLD.state
)
BEGIN
  SELECT RAISE(ABORT, 'an image is removed only with its journal entry');
END;
