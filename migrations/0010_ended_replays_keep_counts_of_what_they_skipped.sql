-- A schedule meets the documents whose file is gone at every firing, and noted each of them anew. Such notes are needed while
-- their replay is at work; when it ends they become counts. Notes of replays that ended before stay as they are: reports
-- add both, and to fold them here would hold the table for as long as they are many.
ALTER TABLE replays ADD COLUMN skipped jsonb NOT NULL DEFAULT '{}';
GRANT DELETE ON replay_skips TO docmill_app;
