-- Texts that the model of an embedding space refuses. A generation that waits for its vectors there is given up only when
-- one of its own texts is among them. The builder enters them, and takes out what a later look no longer meets.
CREATE TABLE refused_texts (
    tenant_id         uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    space_id          integer NOT NULL REFERENCES embedding_spaces (id) ON DELETE CASCADE,
    embed_hash        bytea NOT NULL CHECK (length(embed_hash) = 32),
    refused_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, space_id, embed_hash)
);
ALTER TABLE refused_texts ENABLE ROW LEVEL SECURITY;
ALTER TABLE refused_texts FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON refused_texts TO docmill_app USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY owner ON refused_texts TO docmill_owner USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON refused_texts TO docmill_app;
