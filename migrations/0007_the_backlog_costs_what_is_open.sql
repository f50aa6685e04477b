-- What waits and how fast it goes is asked every few seconds. Each count gets an index of just the jobs it counts, so the
-- question costs what is open now, whatever was done before.
CREATE INDEX jobs_blocked ON jobs (tenant_id, stage) WHERE state = 'blocked';
CREATE INDEX jobs_unresolved ON jobs (tenant_id, stage) WHERE state = 'dead' AND resolved_at IS NULL;
CREATE INDEX jobs_done ON jobs (finished_at) WHERE state = 'done';
