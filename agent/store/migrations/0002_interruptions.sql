-- Times that the process of a worker died under a step. Not attempts: most of them are no fault of the step.
ALTER TABLE postcall_steps ADD COLUMN interruptions integer NOT NULL DEFAULT 0 CHECK (interruptions >= 0);
