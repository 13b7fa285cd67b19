-- Idle timeouts and what has to be known for them, keys of repeated creates, and lists by metadata.

ALTER TABLE sandboxes
  -- Null: never idle for too long.
  ADD COLUMN timeout_seconds integer CHECK (timeout_seconds > 0),
  ADD COLUMN on_timeout text NOT NULL DEFAULT 'destroy' CHECK (on_timeout IN ('destroy')),
  -- When it began to run or was last used, as far as has been recorded. Recorded for sandboxes with a timeout only.
  ADD COLUMN last_active_at timestamptz NOT NULL DEFAULT now();

-- No index names last_active_at, and pages keep some room, so that recording activity, which is done every second,
-- rewrites a row within its page and touches no index.
ALTER TABLE sandboxes SET (fillfactor = 80);
CREATE INDEX sandboxes_with_timeout ON sandboxes (id) WHERE status = 'running' AND timeout_seconds IS NOT NULL;
CREATE INDEX sandboxes_metadata ON sandboxes USING gin (metadata jsonb_path_ops);

-- Control planes that record activity. What happened before complete_until is recorded; a sandbox counts as idle only as
-- far as that is true of all of them.
CREATE TABLE replicas (
  id uuid PRIMARY KEY,
  complete_until timestamptz NOT NULL,
  seen_at timestamptz NOT NULL
);

-- Which sandbox a request with an Idempotency-Key has made. Neither key nor request can be read or guessed from this:
-- services/idempotency-keys.ts says how the hashes are made.
CREATE TABLE idempotency_keys (
  team_id uuid NOT NULL REFERENCES teams (id),
  key_hash bytea NOT NULL CHECK (length(key_hash) = 32),
  request_hash bytea NOT NULL CHECK (length(request_hash) = 32),
  sandbox_id uuid NOT NULL UNIQUE REFERENCES sandboxes (id) ON DELETE CASCADE,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (team_id, key_hash)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);
