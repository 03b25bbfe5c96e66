-- Peers that this host wants nothing of; what is past is kept for a while, as it makes the next ban longer.
CREATE TABLE bans (
  peer_id TEXT    NOT NULL PRIMARY KEY,
  reason  TEXT    NOT NULL,
  since   INTEGER NOT NULL,                        -- Unix milliseconds
  until   INTEGER NOT NULL CHECK (until >= since), -- Unix milliseconds
  times   INTEGER NOT NULL CHECK (times >= 1)      -- bans of the peer that are remembered, this one included
) STRICT, WITHOUT ROWID;

-- An image that is served to nobody, by any protocol.
ALTER TABLE images ADD COLUMN private INTEGER NOT NULL DEFAULT 0 CHECK (private IN (0, 1));

-- The public key whose holder published the name that the image was fetched by: 64 hex characters.
ALTER TABLE images ADD COLUMN publisher TEXT CHECK (length(publisher) = 64);

-- The newest record that was ever accepted of each published name, so that none from before it is taken again.
CREATE TABLE published_names (
  publisher TEXT    NOT NULL CHECK (length(publisher) = 64),  -- the public key, 64 hex characters
  name      TEXT    NOT NULL,
  seq       INTEGER NOT NULL CHECK (seq >= 0),
  record    BLOB    NOT NULL,                                 -- as it is on the wire, with its signature
  own       INTEGER NOT NULL CHECK (own IN (0, 1)),           -- whether this host keeps it in the DHT
  PRIMARY KEY (publisher, name)
) STRICT, WITHOUT ROWID;
