-- Sandboxes are counted by status every few seconds, and stopped ones, of which there may be any number, are not.
CREATE INDEX sandboxes_status ON sandboxes (status) WHERE status <> 'stopped';
