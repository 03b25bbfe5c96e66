-- What Nix has said of store paths, so that it need not be asked again while nothing has changed in its store.
CREATE TABLE known_paths (
  path              TEXT    NOT NULL PRIMARY KEY,               -- full store path
  stamp             TEXT    NOT NULL,                           -- what the store looked like then; another one means to ask again
  nar_hash          BLOB    NOT NULL CHECK (length(nar_hash) = 32),
  nar_size          INTEGER NOT NULL CHECK (nar_size >= 0),     -- bytes of the NAR
  registration_time INTEGER,                                    -- Unix seconds
  facts             TEXT    NOT NULL CHECK (json_valid(facts)), -- JSON: references, deriver, ca, signatures, ultimate
  asked_at          INTEGER NOT NULL                            -- Unix milliseconds
) STRICT, WITHOUT ROWID;

CREATE INDEX known_paths_by_age ON known_paths (asked_at);
