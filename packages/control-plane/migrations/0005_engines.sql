-- What hosts run virtual machines on, what each sandbox was started by and on, and what a snapshot needs in order to be started. Null
-- where it was never told: whether that fits is then for the host agent to find out.

ALTER TABLE hosts
  ADD COLUMN engine_version text,
  -- Why the host has chosen its engine, or has none.
  ADD COLUMN engine_reason text,
  -- The processor that guests find.
  ADD COLUMN cpu text,
  ADD COLUMN disk_format text,
  ADD COLUMN disk_reason text,
  -- All that its engine can use, those of older sandboxes among them.
  ADD COLUMN disk_formats text[] NOT NULL DEFAULT '{}',
  ADD COLUMN memory_backends text[] NOT NULL DEFAULT '{}';

-- An engine that was not there was an empty name.
UPDATE hosts SET engine = NULL WHERE engine = '';

ALTER TABLE sandboxes
  ADD COLUMN engine_version text,
  ADD COLUMN engine_reason text,
  ADD COLUMN cpu text,
  ADD COLUMN disk_format text;

ALTER TABLE templates
  ADD COLUMN engine_version text,
  ADD COLUMN cpu text,
  ADD COLUMN disk_format text;
