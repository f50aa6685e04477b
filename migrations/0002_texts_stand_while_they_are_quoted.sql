-- A replay reads a version anew, while the generation that answers rests on the text as it was read before, and stored
-- answers quote it. So a generation names its text, and every text that a stored answer quotes is written down; neither
-- is collected. NULL: a generation from before this migration, whose version names the text.
ALTER TABLE generations ADD COLUMN parsed_sha256 text CHECK (parsed_sha256 ~ '^[0-9a-f]{64}$');

-- It goes with the document, and when retention lets go of the text of versions that no longer answer.
CREATE TABLE cited_texts (
    tenant_id         uuid NOT NULL,
    version_id        uuid NOT NULL,
    parsed_sha256     text NOT NULL CHECK (parsed_sha256 ~ '^[0-9a-f]{64}$'),
    document_id       uuid NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, version_id, parsed_sha256),
    FOREIGN KEY (tenant_id, document_id) REFERENCES documents (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, version_id) REFERENCES document_versions (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX cited_texts_document ON cited_texts (tenant_id, document_id);

ALTER TABLE cited_texts ENABLE ROW LEVEL SECURITY;
ALTER TABLE cited_texts FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON cited_texts TO docmill_app USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY owner ON cited_texts TO docmill_owner USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, DELETE ON cited_texts TO docmill_app;
