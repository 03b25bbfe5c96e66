-- Further store paths of an image: two paths with the same contents are one image. Its first one is in its row.
CREATE TABLE other_store_paths (
  store_path      TEXT NOT NULL,
  nar_hash        BLOB NOT NULL REFERENCES images (nar_hash) ON DELETE CASCADE,
  deriver         TEXT,
  ca              TEXT,
  references_json TEXT NOT NULL CHECK (json_valid(references_json)),
  signatures_json TEXT NOT NULL CHECK (json_valid(signatures_json)),
  PRIMARY KEY (store_path, nar_hash)
) STRICT, WITHOUT ROWID;

CREATE INDEX other_store_paths_by_image ON other_store_paths (nar_hash);
