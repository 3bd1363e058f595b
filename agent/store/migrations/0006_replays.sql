-- What the carrier asked once and how it was answered: signatures carry no time, so a repeated request gets the first
-- answer again, from any process. A used stream token is kept in the same way.
CREATE TABLE replays (
  key bytea PRIMARY KEY,
  answer text NOT NULL,
  expires_at timestamptz NOT NULL
);
CREATE INDEX ON replays (expires_at);
