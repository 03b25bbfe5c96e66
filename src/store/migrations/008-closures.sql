-- Images that are wanted with everything that they refer to, so that a restart goes on with it.
CREATE TABLE wanted_closures (
  nar_hash BLOB NOT NULL PRIMARY KEY REFERENCES images (nar_hash) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
