-- Schedules: pipelines are processed again at times that their files name. What is to be done stands in the file; a row
-- says, for one tenant, when it is due next and whether it is paused. A firing is a replay with the time slot it serves:
-- two indexes see to it that no slot is served twice and that no schedule has two replays at once.
CREATE TABLE schedules (
    tenant_id         uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    pipeline          text NOT NULL,
    name              text NOT NULL,
    -- As it stood in the file when `next_at` was reckoned; another one is reckoned anew, from then on.
    cron              text NOT NULL,
    -- NULL: no file has the schedule any more.
    next_at           timestamptz,
    paused_at         timestamptz,
    -- The slot that was served last, and by which replay; none when no document was due.
    last_slot         timestamptz,
    last_replay       uuid,
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, pipeline, name)
);
CREATE INDEX schedules_due ON schedules (next_at) WHERE next_at IS NOT NULL AND paused_at IS NULL;

ALTER TABLE replays
    ADD COLUMN pipeline text,
    ADD COLUMN schedule text,
    ADD COLUMN slot     timestamptz,
    -- Why it was stopped.
    ADD COLUMN code     text;
ALTER TABLE replays DROP CONSTRAINT replays_state_check;
-- stopped: its budget is used up
ALTER TABLE replays ADD CONSTRAINT replays_state_check
    CHECK (state IN ('planned', 'running', 'paused', 'done', 'cancelled', 'stopped'));
CREATE UNIQUE INDEX replays_slot ON replays (tenant_id, pipeline, schedule, slot) WHERE schedule IS NOT NULL;
CREATE UNIQUE INDEX replays_scheduled_once ON replays (tenant_id, pipeline, schedule)
    WHERE schedule IS NOT NULL AND state IN ('running', 'paused');

-- Documents that a replay left alone, and why.
CREATE TABLE replay_skips (
    tenant_id         uuid NOT NULL,
    replay_id         uuid NOT NULL,
    document_id       uuid NOT NULL,
    code              text NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, replay_id, document_id),
    FOREIGN KEY (tenant_id, replay_id) REFERENCES replays (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, document_id) REFERENCES documents (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX replay_skips_document ON replay_skips (tenant_id, document_id);

ALTER TABLE schedules ENABLE ROW LEVEL SECURITY;
ALTER TABLE schedules FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON schedules TO docmill_app USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY engine ON schedules TO docmill_engine USING (true) WITH CHECK (true);
CREATE POLICY owner ON schedules TO docmill_owner USING (true) WITH CHECK (true);
ALTER TABLE replay_skips ENABLE ROW LEVEL SECURITY;
ALTER TABLE replay_skips FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON replay_skips TO docmill_app USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY owner ON replay_skips TO docmill_owner USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, UPDATE ON schedules TO docmill_app, docmill_engine;
GRANT SELECT, INSERT ON replay_skips TO docmill_app;
GRANT SELECT (pipeline, schedule, slot, code) ON replays TO docmill_engine;
