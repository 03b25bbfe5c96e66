-- What tells a tree that stays in the Nix store from one that was altered there.

-- The newest change time (ctime) of anything in the tree when it was last proven, in microseconds; null where it is not in the Nix store.
ALTER TABLE images ADD COLUMN newest_change INTEGER;
