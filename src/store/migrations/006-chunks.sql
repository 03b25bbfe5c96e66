-- Manifests of version 1 had no chunks. They go, and the daemon makes them again from the verified trees.
UPDATE images SET manifest_digest = NULL
  WHERE nar_hash IN (SELECT nar_hash FROM manifests WHERE substr(bytes, 1, 9) = x'4e415256494b4d4601');
DELETE FROM manifests WHERE substr(bytes, 1, 9) = x'4e415256494b4d4601';
