-- Teams, templates, keys, hosts and sandboxes. Every id is a UUID; every time is a timestamptz.

CREATE TABLE teams (
  id uuid PRIMARY KEY,
  name text NOT NULL CHECK (name <> ''),
  created_at timestamptz NOT NULL DEFAULT now()
);

-- The platform team owns what everyone may use. Its id is known to all code as the zero UUID.
INSERT INTO teams (id, name) VALUES ('00000000-0000-0000-0000-000000000000', 'Platform');

CREATE TABLE templates (
  id uuid PRIMARY KEY,
  team_id uuid NOT NULL REFERENCES teams (id),
  name text NOT NULL CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
  type text NOT NULL CHECK (type IN ('base', 'snapshot')),
  -- A snapshot's vCPUs and memory are baked in. A base template has none: its sandboxes choose.
  vcpus integer CHECK (vcpus > 0),
  memory_mib integer CHECK (memory_mib > 0),
  disk_mib integer NOT NULL CHECK (disk_mib > 0),
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (team_id, name),
  CHECK (type = 'base' OR (vcpus IS NOT NULL AND memory_mib IS NOT NULL))
);

-- Names of platform templates mean the same for every team, so no team may have one of its own by such a name, nor
-- may the platform take a name that a team uses. The advisory lock orders two transactions that claim one name.
CREATE FUNCTION reserve_platform_template_name() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('template:' || NEW.name, 0));
  IF EXISTS (
    SELECT FROM templates other
    WHERE other.name = NEW.name
      AND other.team_id <> NEW.team_id
      AND '00000000-0000-0000-0000-000000000000' IN (other.team_id, NEW.team_id)
  ) THEN
    RAISE unique_violation USING MESSAGE = 'the template name is reserved', CONSTRAINT = 'templates_platform_name';
  END IF;
  RETURN NEW;
END;
$$;

CREATE TRIGGER templates_platform_name BEFORE INSERT OR UPDATE OF name, team_id ON templates
  FOR EACH ROW EXECUTE FUNCTION reserve_platform_template_name();

INSERT INTO templates (id, team_id, name, type, disk_mib)
VALUES ('00000000-0000-0000-0000-000000000000', '00000000-0000-0000-0000-000000000000', 'minimal', 'base', 5120);

CREATE TABLE api_keys (
  id uuid PRIMARY KEY,
  team_id uuid NOT NULL REFERENCES teams (id),
  name text NOT NULL CHECK (name <> ''),
  -- SHA-256 of the key's 40 digits: with 160 random bits there is nothing to guess, so no slow hash is needed.
  key_hash bytea NOT NULL UNIQUE CHECK (length(key_hash) = 32),
  -- The first characters of the key, for people to tell keys apart.
  prefix text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  last_used_at timestamptz,
  revoked_at timestamptz
);
CREATE INDEX api_keys_team ON api_keys (team_id);

CREATE TABLE hosts (
  id uuid PRIMARY KEY,
  name text NOT NULL,
  type text NOT NULL CHECK (type IN ('regular', 'byoc')),
  -- Owner of a byoc host; regular hosts are the platform's.
  team_id uuid NOT NULL REFERENCES teams (id),
  -- unix:/path/to/socket or tcp:address:port
  address text NOT NULL UNIQUE,
  status text NOT NULL CHECK (status IN ('online', 'unreachable')),
  cpu_count integer NOT NULL DEFAULT 0,
  memory_mib integer NOT NULL DEFAULT 0,
  agent_version text,
  engine text,
  created_at timestamptz NOT NULL DEFAULT now(),
  last_seen_at timestamptz,
  -- Since when the agent has not answered; null while it does.
  contact_lost_at timestamptz
);

CREATE TABLE sandboxes (
  id uuid PRIMARY KEY,
  team_id uuid NOT NULL REFERENCES teams (id),
  template_id uuid NOT NULL REFERENCES templates (id),
  template_team_id uuid NOT NULL REFERENCES teams (id),
  host_id uuid REFERENCES hosts (id),
  status text NOT NULL,
  status_reason_code text,
  status_reason_message text,
  -- Counts changes of status: a change names the version it starts from, so of two only one happens.
  version bigint NOT NULL DEFAULT 1,
  vcpus integer NOT NULL CHECK (vcpus > 0),
  memory_mib integer NOT NULL CHECK (memory_mib > 0),
  disk_mib integer NOT NULL CHECK (disk_mib > 0),
  metadata jsonb NOT NULL DEFAULT '{}',
  engine text,
  -- When a transitional status is looked into; null in settled ones.
  deadline_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  started_at timestamptz,
  ended_at timestamptz
);
-- Ids are UUID v7, so their order is that of creation.
CREATE INDEX sandboxes_team ON sandboxes (team_id, id DESC);
CREATE INDEX sandboxes_host_occupied ON sandboxes (host_id) WHERE status NOT IN ('stopped', 'error');

-- One row per change of a sandbox's status, written by the statement that changes it.
CREATE TABLE sandbox_events (
  id uuid PRIMARY KEY,
  sandbox_id uuid NOT NULL REFERENCES sandboxes (id),
  version bigint NOT NULL,
  from_status text,
  to_status text NOT NULL,
  reason_code text,
  reason_message text,
  at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (sandbox_id, version)
);

-- Secrets made once per database, such as the key that access tokens are derived with.
CREATE TABLE platform_secrets (
  name text PRIMARY KEY,
  value bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
