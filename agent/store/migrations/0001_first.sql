-- Tenants and their calls, what was said and recorded, what came of it, and the ledger of post-call work.

CREATE DOMAIN e164 AS text CHECK (VALUE ~ '^\+[1-9][0-9]{6,14}$');

CREATE TABLE tenants (
  id text PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  name text NOT NULL CHECK (name <> ''),
  language text NOT NULL DEFAULT '',
  time_zone text NOT NULL DEFAULT 'UTC',
  greeting text,                       -- NULL here and below: what the process is set to
  instructions text,
  voice text,
  tools text[],                        -- NULL: all built in ones
  transfer_numbers e164[] NOT NULL DEFAULT '{}',
  services text[] NOT NULL DEFAULT '{}',
  webhook_url text,
  webhook_secret text,
  delete_recordings boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CHECK (webhook_url IS NULL OR webhook_secret IS NOT NULL)
);

CREATE TABLE tenant_numbers (
  number e164 PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants ON DELETE CASCADE
);
CREATE INDEX ON tenant_numbers (tenant_id);

INSERT INTO tenants (id, name) VALUES ('default', 'Default');

CREATE FUNCTION tell_of_tenants() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('tenants', '');
  RETURN NULL;
END $$;
CREATE TRIGGER tenants_changed AFTER INSERT OR UPDATE OR DELETE ON tenants
  FOR EACH STATEMENT EXECUTE FUNCTION tell_of_tenants();
CREATE TRIGGER tenant_numbers_changed AFTER INSERT OR UPDATE OR DELETE ON tenant_numbers
  FOR EACH STATEMENT EXECUTE FUNCTION tell_of_tenants();

-- Processes that answer calls. A call still active whose server was not seen for a while has crashed with it.
CREATE TABLE servers (
  id uuid PRIMARY KEY,
  host text NOT NULL,
  started_at timestamptz NOT NULL DEFAULT now(),
  seen_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE calls (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  call_sid text NOT NULL UNIQUE CHECK (call_sid <> ''),
  tenant_id text NOT NULL REFERENCES tenants,
  direction text NOT NULL CHECK (direction IN ('inbound', 'outbound')),
  caller text NOT NULL,
  called text NOT NULL,
  server_id uuid,                      -- who answered; no foreign key: a call is kept even if its server is not known
  status text NOT NULL CHECK (status IN ('active', 'ended')),
  answered_at timestamptz NOT NULL,
  ended_at timestamptz,
  outcome text,
  reason text NOT NULL DEFAULT '',
  dtmf text NOT NULL DEFAULT '',
  record jsonb,                        -- all of the CallRecord; NULL for a call that crashed
  due_at timestamptz,                  -- when post-call work is next due; NULL: there is none (any more)
  claim uuid,
  claimed_by text,
  claimed_at timestamptz,
  CHECK ((status = 'ended') = (ended_at IS NOT NULL)),
  CHECK ((status = 'ended') = (outcome IS NOT NULL)),
  CHECK (due_at IS NULL OR status = 'ended'),                                   -- PC-3
  CHECK ((claim IS NULL) = (claimed_by IS NULL) AND (claim IS NULL) = (claimed_at IS NULL))
);
CREATE INDEX calls_due ON calls (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX calls_active ON calls (server_id) WHERE status = 'active';
CREATE INDEX calls_answered ON calls (answered_at DESC);
CREATE INDEX calls_of_caller ON calls (tenant_id, caller, answered_at DESC);

CREATE TABLE turns (
  call_id bigint NOT NULL REFERENCES calls ON DELETE CASCADE,
  turn_key text NOT NULL,              -- the model's item, or role and start where there is none
  role text NOT NULL CHECK (role IN ('caller', 'agent')),
  item_id text NOT NULL,
  text text NOT NULL,
  heard_text text NOT NULL,
  started_ms integer NOT NULL,
  audio_ms integer NOT NULL CHECK (audio_ms >= 0),
  heard_ms integer NOT NULL CHECK (heard_ms >= 0),
  interrupted boolean NOT NULL,
  complete boolean NOT NULL,
  PRIMARY KEY (call_id, turn_key)
);

CREATE TABLE recordings (
  recording_sid text PRIMARY KEY,
  call_id bigint NOT NULL REFERENCES calls ON DELETE CASCADE,
  status text NOT NULL CHECK (status IN ('in-progress', 'completed', 'absent', 'failed')),
  url text,
  duration_s integer CHECK (duration_s >= 0),
  channels smallint CHECK (channels > 0),
  path text,
  sha256 text CHECK (sha256 ~ '^[0-9a-f]{64}$'),
  size_bytes bigint CHECK (size_bytes >= 0),
  downloaded_at timestamptz,
  deleted_at timestamptz,              -- at the carrier
  CHECK ((path IS NULL) = (sha256 IS NULL) AND (path IS NULL) = (downloaded_at IS NULL))
);
CREATE INDEX ON recordings (call_id);

-- What the carrier told of recordings, also of calls that are not known (yet).
CREATE TABLE recording_callbacks (
  recording_sid text PRIMARY KEY,
  call_sid text NOT NULL,
  status text NOT NULL CHECK (status IN ('in-progress', 'completed', 'absent', 'failed')),
  url text,
  duration_s integer,
  channels smallint,
  came_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON recording_callbacks (call_sid);

CREATE TABLE leads (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants,
  phone e164 NOT NULL,
  name text,
  city text,
  service text,
  status text NOT NULL DEFAULT 'new'
    CHECK (status IN ('new', 'contacted', 'qualified', 'appointment', 'not_interested', 'customer')),
  note text,
  last_call_id bigint REFERENCES calls ON DELETE SET NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (tenant_id, phone)
);

CREATE TABLE appointments (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants,
  call_id bigint REFERENCES calls ON DELETE SET NULL,
  call_sid text NOT NULL,              -- also of a call whose row is not there yet
  tool_call_id text NOT NULL,
  lead_id bigint REFERENCES leads,
  starts_at timestamptz NOT NULL,
  service text NOT NULL DEFAULT '',
  name text NOT NULL DEFAULT '',
  phone text NOT NULL,
  note text NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (call_sid, tool_call_id),
  UNIQUE (tenant_id, phone, starts_at)
);
CREATE INDEX ON appointments (call_id);

CREATE TABLE postcall_steps (
  call_id bigint NOT NULL REFERENCES calls ON DELETE CASCADE,
  step text NOT NULL
    CHECK (step IN ('recording', 'transcription', 'summary', 'extraction', 'lead', 'status', 'webhook')),
  state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'running', 'done', 'failed', 'dead')),
  attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  result jsonb,
  error text,
  started_at timestamptz,
  next_try_at timestamptz,
  claimed_by text,
  finished_at timestamptz,
  PRIMARY KEY (call_id, step),
  CHECK ((state = 'done') = (result IS NOT NULL)),
  CHECK (state NOT IN ('failed', 'dead') OR error IS NOT NULL)
);

CREATE TABLE webhook_deliveries (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  call_id bigint NOT NULL REFERENCES calls ON DELETE CASCADE,
  idempotency_key text NOT NULL,
  attempt integer NOT NULL CHECK (attempt > 0),
  url text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  http_status integer,
  error text,
  duration_ms integer NOT NULL CHECK (duration_ms >= 0),
  UNIQUE (call_id, attempt)
);
