-- A call as it stands in a list. Its post-call work is active (the call goes on), open (there is some left), waiting (for
-- the operator), dead (a step was given up), or done.
CREATE VIEW call_lines AS
SELECT c.id, c.call_sid, c.tenant_id, c.direction, c.caller, c.called, c.answered_at, c.ended_at, c.outcome,
  CASE
    WHEN c.status = 'active' THEN 'active'
    WHEN c.due_at IS NOT NULL THEN 'open'
    WHEN EXISTS (SELECT FROM postcall_steps s WHERE s.call_id = c.id AND s.state = 'waiting') THEN 'waiting'
    WHEN EXISTS (SELECT FROM postcall_steps s WHERE s.call_id = c.id AND s.state = 'dead') THEN 'dead'
    ELSE 'done'
  END AS postcall
FROM calls c;
