-- What is null in the journal is said to be allowed: SQLite before 3.45, such as a distribution's sqlite3 that looks at a copy, takes
-- json_valid(NULL) for false, and says of an intact catalog that its constraints are broken. The table is made anew, with all that is in it.
DROP TRIGGER images_begin_in_the_journal;
DROP TRIGGER images_change_in_the_journal;
DROP TRIGGER images_end_in_the_journal;

CREATE TABLE new_journal (
  id         INTEGER PRIMARY KEY,
  nar_hash   BLOB    NOT NULL CHECK (length(nar_hash) = 32),
  at         INTEGER NOT NULL,                             -- Unix milliseconds
  from_state TEXT,                                         -- null: there was no image
  event      TEXT    NOT NULL,
  to_state   TEXT,                                         -- null: there is no image any more
  reason     TEXT    NOT NULL,
  evidence   TEXT    CHECK (evidence IS NULL OR json_valid(evidence)), -- JSON
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

INSERT INTO new_journal (id, nar_hash, at, from_state, event, to_state, reason, evidence)
SELECT id, nar_hash, at, from_state, event, to_state, reason, evidence FROM journal;

DROP TABLE journal;
ALTER TABLE new_journal RENAME TO journal;

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
