-- A schedule meets the documents whose file is gone at every firing, and noted each of them anew. Such notes are needed while
-- their replay is at work; of one that has ended the counts are kept.
ALTER TABLE replays ADD COLUMN skipped jsonb NOT NULL DEFAULT '{}';
UPDATE replays r SET skipped = s.counts FROM (
    SELECT tenant_id, replay_id, jsonb_object_agg(code, documents) AS counts FROM (
        SELECT tenant_id, replay_id, code, count(*) AS documents FROM replay_skips GROUP BY 1, 2, 3) AS counted
    GROUP BY 1, 2) AS s
WHERE r.tenant_id = s.tenant_id AND r.id = s.replay_id AND r.state NOT IN ('planned', 'running', 'paused');
DELETE FROM replay_skips s USING replays r
WHERE r.tenant_id = s.tenant_id AND r.id = s.replay_id AND r.state NOT IN ('planned', 'running', 'paused');
GRANT DELETE ON replay_skips TO docmill_app;
