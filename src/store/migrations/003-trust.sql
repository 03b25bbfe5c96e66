-- Who vouches for what is said of an image, and under which policy it was asked for.

-- How the image was asked for, which decides how many signatures it needs.
ALTER TABLE images ADD COLUMN asked_by TEXT NOT NULL DEFAULT 'nar-hash' CHECK (asked_by IN ('nar-hash', 'store-path', 'name'));

-- Why the store path and the references may be believed; null: they are claims of a peer.
ALTER TABLE images ADD COLUMN vouched_by TEXT CHECK (vouched_by IN ('nix', 'content-address', 'signatures'));

-- What was imported, the Nix store of this host said itself.
UPDATE images SET vouched_by = 'nix' WHERE source = 'import' AND store_path IS NOT NULL;

-- The same of an image's further store paths.
ALTER TABLE other_store_paths ADD COLUMN vouched_by TEXT CHECK (vouched_by IN ('nix', 'content-address', 'signatures'));
