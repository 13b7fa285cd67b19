-- Sandboxes that are paused, recovered and copied, and templates that hold the frozen state of one.

ALTER TABLE sandboxes
  DROP CONSTRAINT sandboxes_on_timeout_check,
  ALTER COLUMN on_timeout SET DEFAULT 'pause',
  ADD CONSTRAINT sandboxes_on_timeout_check CHECK (on_timeout IN ('pause', 'destroy')),
  ADD COLUMN memory_backend text CHECK (memory_backend IN ('file', 'uffd')),
  -- What a dead one can be started from again.
  ADD COLUMN recoverable text[] NOT NULL DEFAULT '{}' CHECK (recoverable <@ ARRAY['disk', 'last_pause']),
  -- Kept until it runs again, so that a resume that fails leaves it as it was.
  ADD COLUMN paused_at timestamptz,
  -- Pauses that have failed since the last one that has not, and until when none is tried for being idle.
  ADD COLUMN pause_failures integer NOT NULL DEFAULT 0,
  ADD COLUMN pause_retry_at timestamptz;

-- A host holds something of sandboxes in `error` too: the disk that they can be recovered from.
CREATE INDEX sandboxes_host_resident ON sandboxes (host_id) WHERE status <> 'stopped';
DROP INDEX sandboxes_host_occupied;

ALTER TABLE templates
  -- Of a snapshot: the host that has it, and the sandbox that it was taken of, whose token its guest agent demands.
  ADD COLUMN host_id uuid REFERENCES hosts (id),
  ADD COLUMN generation_id uuid,
  ADD COLUMN source_sandbox_id uuid REFERENCES sandboxes (id),
  ADD COLUMN size_bytes bigint NOT NULL DEFAULT 0,
  ADD COLUMN engine text,
  ADD COLUMN status text NOT NULL DEFAULT 'ready' CHECK (status IN ('creating', 'ready', 'deleting', 'deleted')),
  -- When one that is being created or deleted is looked into; null in settled ones.
  ADD COLUMN deadline_at timestamptz,
  -- Since when it has no name any more. Its files may still have to go (`deleting`). Rows stay: sandboxes refer to them.
  ADD COLUMN deleted_at timestamptz,
  DROP CONSTRAINT templates_team_id_name_key,
  ADD CHECK (type = 'base' OR (host_id IS NOT NULL AND source_sandbox_id IS NOT NULL)),
  ADD CHECK ((status = 'deleted') <= (deleted_at IS NOT NULL)),
  ADD CHECK ((status IN ('creating', 'deleting')) = (deadline_at IS NOT NULL));

-- One that is to replace another is complete before it takes the name, so for that time there are two. Never three.
CREATE UNIQUE INDEX templates_name ON templates (team_id, name) WHERE deleted_at IS NULL AND status <> 'creating';
CREATE UNIQUE INDEX templates_name_being_created ON templates (team_id, name)
  WHERE deleted_at IS NULL AND status = 'creating';
CREATE INDEX templates_snapshots_of_team ON templates (team_id, id DESC) WHERE type = 'snapshot' AND deleted_at IS NULL;
CREATE INDEX templates_snapshots_of_host ON templates (host_id) WHERE status <> 'deleted';

-- As before, among those that have their name still.
CREATE OR REPLACE FUNCTION reserve_platform_template_name() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('template:' || NEW.name, 0));
  IF NEW.deleted_at IS NULL AND EXISTS (
    SELECT FROM templates other
    WHERE other.name = NEW.name
      AND other.deleted_at IS NULL
      AND other.team_id <> NEW.team_id
      AND '00000000-0000-0000-0000-000000000000' IN (other.team_id, NEW.team_id)
  ) THEN
    RAISE unique_violation USING MESSAGE = 'the template name is reserved', CONSTRAINT = 'templates_platform_name';
  END IF;
  RETURN NEW;
END;
$$;
