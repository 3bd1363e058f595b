-- How much the model is told of who calls from a known number; a caller ID proves nothing, so little unless the tenant says so.
ALTER TABLE tenants ADD COLUMN lookup text NOT NULL DEFAULT 'guarded' CHECK (lookup IN ('guarded', 'open'));
