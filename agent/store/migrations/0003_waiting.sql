-- A step whose model its provider has no more waits for the operator, until a worker is set to a model not yet tried.
ALTER TABLE postcall_steps DROP CONSTRAINT postcall_steps_state_check;
ALTER TABLE postcall_steps ADD CONSTRAINT postcall_steps_state_check
  CHECK (state IN ('pending', 'running', 'waiting', 'done', 'failed', 'dead'));
ALTER TABLE postcall_steps ADD COLUMN models_gone text[] NOT NULL DEFAULT '{}';
ALTER TABLE postcall_steps ADD CHECK (state <> 'waiting' OR (error IS NOT NULL AND models_gone <> '{}'));
CREATE INDEX postcall_steps_waiting ON postcall_steps (call_id) WHERE state = 'waiting';
