-- The data model everything stands on. See README.md for the rules of this folder.
--
-- Roles (created by set-up, before migrations): docmill_owner owns and migrates; docmill_app runs with one tenant per
-- transaction (`set_config('docmill.tenant', …, true)`) and is bound by row-level security on every tenant table;
-- docmill_engine may cross tenants, but only over ids and states, never over text.

-- ---------------------------------------------------------------------------------------------------------------
-- The current tenant: NULL when none is set, so every policy then matches no row.
CREATE FUNCTION current_tenant() RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT nullif(current_setting('docmill.tenant', true), '')::uuid $$;

-- ---------------------------------------------------------------------------------------------------------------
-- Tenants, principals, keys
CREATE TABLE tenants (
    id                uuid PRIMARY KEY,
    name              text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 200),
    settings          jsonb NOT NULL DEFAULT '{}',
    max_file_bytes    bigint NOT NULL DEFAULT 1073741824 CHECK (max_file_bytes > 0),
    created_at        timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE principals (
    tenant_id         uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    id                uuid NOT NULL,
    kind              text NOT NULL CHECK (kind IN ('key', 'oidc')),
    subject           text NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, kind, subject)
);

CREATE TABLE api_keys (
    tenant_id         uuid NOT NULL,
    id                uuid NOT NULL,
    principal_id      uuid NOT NULL,
    name              text NOT NULL,
    prefix            text NOT NULL,
    hash              bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
    scopes            text[] NOT NULL,
    -- Access labels the caller holds; a document with labels is visible only to callers that hold one of them.
    labels            text[] NOT NULL DEFAULT '{}',
    created_at        timestamptz NOT NULL DEFAULT now(),
    expires_at        timestamptz,
    revoked_at        timestamptz,
    last_used_at      timestamptz,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, principal_id) REFERENCES principals (tenant_id, id) ON DELETE CASCADE
);

-- ---------------------------------------------------------------------------------------------------------------
-- Pipelines: content-addressed, shared by all tenants, never changed once written
CREATE TABLE pipeline_versions (
    version           text PRIMARY KEY CHECK (version ~ '^[0-9a-f]{64}$'),
    name              text NOT NULL,
    definition        jsonb NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now()
);

-- ---------------------------------------------------------------------------------------------------------------
-- Documents and their versions
CREATE TABLE documents (
    tenant_id         uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    id                uuid NOT NULL,
    collection        text NOT NULL DEFAULT 'default' CHECK (length(collection) BETWEEN 1 AND 200),
    external_id       text CHECK (length(external_id) BETWEEN 1 AND 500),
    name              text NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 255),
    metadata          jsonb NOT NULL DEFAULT '{}',
    labels            text[] NOT NULL DEFAULT '{}',
    -- What the last settled or running work says: uploading | processing | done | partial | failed | cancelled | expired
    state             text NOT NULL DEFAULT 'uploading'
                      CHECK (state IN ('uploading', 'processing', 'done', 'partial', 'failed', 'cancelled', 'expired')),
    code              text,
    -- The generation that answers; set by one update in the commit of the index stage.
    visible_generation uuid,
    visible_version   uuid,
    parent_id         uuid,
    origin_path       text,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    retention_until   timestamptz,
    deleted_at        timestamptz,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, parent_id) REFERENCES documents (tenant_id, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX documents_external ON documents (tenant_id, collection, external_id)
    WHERE external_id IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX documents_listing ON documents (tenant_id, created_at DESC, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX documents_visible ON documents (tenant_id, visible_generation) WHERE visible_generation IS NOT NULL;

CREATE TABLE document_versions (
    tenant_id         uuid NOT NULL,
    id                uuid NOT NULL,
    document_id       uuid NOT NULL,
    number            integer NOT NULL CHECK (number >= 1),
    content_type      text NOT NULL,
    size_bytes        bigint NOT NULL CHECK (size_bytes >= 1),
    sha256            text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    pipeline_version  text NOT NULL REFERENCES pipeline_versions (version),
    -- pending: URL signed, nothing verified; accepted: copied to the content-addressed key; expired: never completed
    upload_state      text NOT NULL DEFAULT 'pending' CHECK (upload_state IN ('pending', 'accepted', 'expired')),
    upload_key        text NOT NULL,
    upload_expires_at timestamptz NOT NULL,
    accepted_key      text,
    accepted_at       timestamptz,
    -- Set when retention removed the uploaded bytes; what was made of them stays.
    raw_removed_at    timestamptz,
    -- Set by the ingest stage.
    format            text,
    language          text,
    page_count        integer,
    char_count        integer,
    parsed_sha256     text,
    title             text,
    -- [{"page", "code"}]: pages that could not be read, the first hundred
    failed_pages      jsonb NOT NULL DEFAULT '[]',
    created_at        timestamptz NOT NULL DEFAULT now(),
    traceparent       text,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, document_id, number),
    FOREIGN KEY (tenant_id, document_id) REFERENCES documents (tenant_id, id) ON DELETE CASCADE,
    CHECK (upload_state <> 'accepted' OR accepted_key IS NOT NULL)
);
CREATE INDEX document_versions_bytes ON document_versions (tenant_id, sha256);
CREATE INDEX document_versions_expiry ON document_versions (upload_expires_at) WHERE upload_state = 'pending';

CREATE TABLE document_events (
    tenant_id         uuid NOT NULL,
    id                bigint GENERATED ALWAYS AS IDENTITY,
    document_id       uuid NOT NULL,
    run_id            uuid,
    -- upload.created, upload.accepted, run.started, stage.done, stage.failed, stage.retrying, run.settled, …
    kind              text NOT NULL,
    -- ids, counts, codes; never document text
    data              jsonb NOT NULL DEFAULT '{}',
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, document_id) REFERENCES documents (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX document_events_feed ON document_events (tenant_id, document_id, id);

-- ---------------------------------------------------------------------------------------------------------------
-- Runs, jobs, attempts, outbox: the engine's tables. No text of documents in any of them.
CREATE TABLE runs (
    tenant_id         uuid NOT NULL,
    id                uuid NOT NULL,
    document_id       uuid NOT NULL,
    version_id        uuid NOT NULL,
    pipeline_version  text NOT NULL REFERENCES pipeline_versions (version),
    cause             text NOT NULL CHECK (cause IN ('upload', 'replay', 'schedule', 'operator')),
    parent_run        uuid,
    replay_id         uuid,
    state             text NOT NULL DEFAULT 'running'
                      CHECK (state IN ('running', 'done', 'partial', 'failed', 'cancelled')),
    code              text,
    priority          smallint NOT NULL DEFAULT 0,
    searchable_at     timestamptz,
    created_at        timestamptz NOT NULL DEFAULT now(),
    settled_at        timestamptz,
    traceparent       text,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, document_id) REFERENCES documents (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, version_id) REFERENCES document_versions (tenant_id, id) ON DELETE CASCADE,
    CHECK ((state = 'running') = (settled_at IS NULL))
);
CREATE INDEX runs_document ON runs (tenant_id, document_id, created_at DESC);
CREATE INDEX runs_version ON runs (tenant_id, version_id);
CREATE INDEX runs_open ON runs (created_at) WHERE state = 'running';

CREATE TABLE jobs (
    tenant_id         uuid NOT NULL,
    id                uuid NOT NULL,
    run_id            uuid NOT NULL,
    document_id       uuid NOT NULL,
    stage             text NOT NULL,
    shard             integer NOT NULL DEFAULT 0,
    required          boolean NOT NULL,
    -- True for the stage that is released by settlement and keeps no run open (notify).
    on_settled        boolean NOT NULL DEFAULT false,
    state             text NOT NULL
                      CHECK (state IN ('blocked', 'ready', 'leased', 'waiting', 'held', 'done', 'dead', 'cancelled')),
    -- Predecessors that are not final yet.
    pending           integer NOT NULL DEFAULT 0 CHECK (pending >= 0),
    successors        uuid[] NOT NULL DEFAULT '{}',
    priority          smallint NOT NULL DEFAULT 0,
    available_at      timestamptz NOT NULL DEFAULT now(),
    fence             bigint NOT NULL DEFAULT 0,
    lease_until       timestamptz,
    worker            text,
    -- Attempts that ended in a typed error / whose lease ran out.
    failed            integer NOT NULL DEFAULT 0,
    lost              integer NOT NULL DEFAULT 0,
    emission          integer NOT NULL DEFAULT 0,
    emitted_at        timestamptz,
    held_reason       text CHECK (held_reason IN ('paused', 'budget', 'scan')),
    code              text,
    -- The failure as {code, message, limit, measured}; never document text.
    failure           jsonb,
    -- The output manifest, once done.
    manifest          jsonb,
    cached            boolean NOT NULL DEFAULT false,
    -- A replay asks to compute even when the cache has the result.
    recompute         boolean NOT NULL DEFAULT false,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    finished_at       timestamptz,
    -- What an operator did about a dead letter.
    resolved_at       timestamptz,
    resolution        text CHECK (resolution IN ('retried', 'discarded')),
    traceparent       text,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, run_id, stage, shard),
    FOREIGN KEY (tenant_id, run_id) REFERENCES runs (tenant_id, id) ON DELETE CASCADE,
    CHECK ((state = 'leased') = (lease_until IS NOT NULL)),
    CHECK ((state = 'held') = (held_reason IS NOT NULL)),
    CHECK ((state = 'blocked') <= (pending > 0 OR on_settled)),
    CHECK ((resolved_at IS NULL) = (resolution IS NULL))
);
CREATE INDEX jobs_open ON jobs (stage, state, available_at) WHERE state IN ('ready', 'leased', 'waiting', 'held');
-- What the relay has released and nobody has finished: small whatever the backlog.
CREATE INDEX jobs_in_flight ON jobs (stage, tenant_id) WHERE state = 'leased' OR (state = 'ready' AND emitted_at IS NOT NULL);
CREATE INDEX jobs_timers ON jobs (available_at) WHERE state IN ('waiting', 'held');
CREATE INDEX jobs_dead ON jobs (tenant_id, stage, finished_at DESC) WHERE state = 'dead';
CREATE INDEX jobs_document ON jobs (tenant_id, document_id);

CREATE TABLE attempts (
    tenant_id         uuid NOT NULL,
    id                bigint GENERATED ALWAYS AS IDENTITY,
    job_id            uuid NOT NULL,
    fence             bigint NOT NULL,
    worker            text NOT NULL,
    started_at        timestamptz NOT NULL DEFAULT now(),
    finished_at       timestamptz,
    -- NULL while running; done | failed | lost | released | snoozed | cancelled
    outcome           text CHECK (outcome IN ('done', 'failed', 'lost', 'released', 'snoozed', 'cancelled')),
    failure           jsonb,
    cached            boolean NOT NULL DEFAULT false,
    run_millis        bigint,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, job_id, fence),
    FOREIGN KEY (tenant_id, job_id) REFERENCES jobs (tenant_id, id) ON DELETE CASCADE
);

CREATE TABLE outbox (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id         uuid NOT NULL,
    -- job: wakes a stage; settled: tells listeners outside
    topic             text NOT NULL CHECK (topic IN ('job', 'settled')),
    stage             text,
    job_id            uuid,
    run_id            uuid NOT NULL,
    emission          integer NOT NULL DEFAULT 0,
    payload           jsonb NOT NULL DEFAULT '{}',
    priority          smallint NOT NULL DEFAULT 0,
    created_at        timestamptz NOT NULL DEFAULT now(),
    sent_at           timestamptz,
    traceparent       text,
    FOREIGN KEY (tenant_id, run_id) REFERENCES runs (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX outbox_unsent ON outbox (topic, stage, tenant_id, priority DESC, id) WHERE sent_at IS NULL;
CREATE INDEX outbox_unsent_job ON outbox (job_id) WHERE sent_at IS NULL;
CREATE INDEX outbox_sent ON outbox (sent_at) WHERE sent_at IS NOT NULL;
CREATE INDEX outbox_run ON outbox (tenant_id, run_id);

-- What an operator stopped: a stage, a pipeline or a tenant.
CREATE TABLE pauses (
    kind              text NOT NULL CHECK (kind IN ('stage', 'pipeline', 'tenant')),
    subject           text NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, subject)
);

-- Events that could not be read: parked, never dropped.
CREATE TABLE parked_events (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject           text NOT NULL,
    size_bytes        integer NOT NULL,
    reason            text NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now()
);

-- ---------------------------------------------------------------------------------------------------------------
-- Artifacts and the stage cache
CREATE TABLE artifacts (
    tenant_id         uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    sha256            text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes        bigint NOT NULL,
    key               text NOT NULL,
    -- intent: a row before the PUT, so that an orphaned object is always known
    state             text NOT NULL DEFAULT 'intent' CHECK (state IN ('intent', 'stored')),
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, sha256)
);

CREATE TABLE stage_cache (
    tenant_id         uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    key               text NOT NULL CHECK (key ~ '^[0-9a-f]{64}$'),
    stage             text NOT NULL,
    manifest          jsonb NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    used_at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, key)
);

-- ---------------------------------------------------------------------------------------------------------------
-- Corpus: generations, chunks, vectors
CREATE TABLE generations (
    tenant_id         uuid NOT NULL,
    id                uuid NOT NULL,
    document_id       uuid NOT NULL,
    version_id        uuid NOT NULL,
    chunks_sha256     text NOT NULL,
    chunk_count       integer NOT NULL,
    -- building: invisible; visible: documents.visible_generation points here; retired: replaced, entries may go
    state             text NOT NULL DEFAULT 'building' CHECK (state IN ('building', 'visible', 'retired')),
    created_at        timestamptz NOT NULL DEFAULT now(),
    visible_at        timestamptz,
    retired_at        timestamptz,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, document_id) REFERENCES documents (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, version_id) REFERENCES document_versions (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX generations_document ON generations (tenant_id, document_id);
CREATE INDEX generations_version ON generations (tenant_id, version_id);

CREATE TABLE chunks (
    tenant_id         uuid NOT NULL,
    id                uuid NOT NULL,
    generation_id     uuid NOT NULL,
    document_id       uuid NOT NULL,
    ordinal           integer NOT NULL CHECK (ordinal >= 0),
    -- SHA-256 of the text that is embedded (heading path and chunk text): the identity of its vector.
    embed_hash        bytea NOT NULL CHECK (length(embed_hash) = 32),
    char_start        integer NOT NULL CHECK (char_start >= 0),
    char_end          integer NOT NULL,
    -- Equals canonical[char_start..char_end] less hidden text.
    text              text NOT NULL,
    heading_path      text[] NOT NULL DEFAULT '{}',
    kind              text NOT NULL DEFAULT 'text' CHECK (kind IN ('text', 'table', 'code', 'list')),
    page_start        integer,
    page_end          integer,
    tokens            integer NOT NULL,
    language          text,
    has_hidden        boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, generation_id, ordinal),
    FOREIGN KEY (tenant_id, generation_id) REFERENCES generations (tenant_id, id) ON DELETE CASCADE,
    CHECK (char_end > char_start)
);
CREATE INDEX chunks_vector ON chunks (tenant_id, embed_hash);
CREATE INDEX chunks_document ON chunks (tenant_id, document_id);

CREATE TABLE embedding_spaces (
    id                integer PRIMARY KEY,
    name              text NOT NULL UNIQUE,
    dimensions        integer NOT NULL CHECK (dimensions BETWEEN 1 AND 4096),
    fingerprint       text,
    created_at        timestamptz NOT NULL DEFAULT now()
);
INSERT INTO embedding_spaces (id, name, dimensions) VALUES (1, 'all-minilm-l6-v2', 384);

-- Immutable and content-addressed per tenant and space: a text is embedded once. Visibility is a join, never a flag.
CREATE TABLE vectors (
    tenant_id         uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    space_id          integer NOT NULL REFERENCES embedding_spaces (id),
    embed_hash        bytea NOT NULL CHECK (length(embed_hash) = 32),
    embedding         vector NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, space_id, embed_hash)
);
CREATE INDEX vectors_space_1 ON vectors USING hnsw ((embedding::vector(384)) vector_cosine_ops) WITH (m = 16, ef_construction = 64)
    WHERE space_id = 1;

-- Which documents a search may return: one meaning for every half of retrieval. `metadata_tests` is
-- {field: {"any": [values]} | {"min": value, "max": value}}; a field that holds a list passes when one of its items does.
CREATE FUNCTION metadata_passes(value jsonb, test jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT EXISTS (
        SELECT 1 FROM jsonb_array_elements(CASE WHEN jsonb_typeof(value) = 'array' THEN value ELSE jsonb_build_array(value) END) AS item (v)
        WHERE CASE
            WHEN test ? 'any' THEN (test -> 'any') @> jsonb_build_array(v)
            ELSE (NOT test ? 'min' OR (jsonb_typeof(v) = jsonb_typeof(test -> 'min') AND v >= test -> 'min'))
                 AND (NOT test ? 'max' OR (jsonb_typeof(v) = jsonb_typeof(test -> 'max') AND v <= test -> 'max'))
        END) $$;

CREATE FUNCTION metadata_matches(metadata jsonb, tests jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT NOT EXISTS (
        SELECT 1 FROM jsonb_each(tests) AS wanted (field, test) WHERE NOT metadata_passes(metadata -> wanted.field, wanted.test)) $$;

-- Free of subqueries, so that the planner puts it into the query in place of a call: 20 times faster a row.
CREATE FUNCTION document_matches(d documents, caller_labels text[], in_collection text, among uuid[], metadata_tests jsonb,
                                 created_from timestamptz, created_until timestamptz, wanted_labels text[]) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT d.deleted_at IS NULL
        AND (d.labels = '{}' OR d.labels && caller_labels)
        AND (in_collection IS NULL OR d.collection = in_collection)
        AND (among IS NULL OR d.id = ANY (among))
        AND (created_from IS NULL OR d.created_at >= created_from)
        AND (created_until IS NULL OR d.created_at < created_until)
        AND (wanted_labels IS NULL OR d.labels && wanted_labels)
        AND (metadata_tests IS NULL OR metadata_matches(d.metadata, metadata_tests)) $$;

-- The feed of the lexical index: one gapless sequence per tenant, taken from a counter row as the last statement of
-- the commit, so that a follower never skips a row that commits late.
CREATE TABLE index_heads (
    tenant_id         uuid PRIMARY KEY REFERENCES tenants (id) ON DELETE CASCADE,
    seq               bigint NOT NULL DEFAULT 0
);

CREATE TABLE index_ops (
    tenant_id         uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    seq               bigint NOT NULL,
    op                text NOT NULL CHECK (op IN ('add', 'remove')),
    generation_id     uuid NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, seq)
);
CREATE INDEX index_ops_generation ON index_ops (tenant_id, generation_id);

-- Serving nodes and how far each has applied the feed.
CREATE TABLE index_nodes (
    id                text PRIMARY KEY,
    lease_until       timestamptz NOT NULL
);

CREATE TABLE index_watermarks (
    node_id           text NOT NULL REFERENCES index_nodes (id) ON DELETE CASCADE,
    tenant_id         uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    seq               bigint NOT NULL,
    PRIMARY KEY (node_id, tenant_id)
);

-- ---------------------------------------------------------------------------------------------------------------
-- Results
CREATE TABLE extractions (
    tenant_id         uuid NOT NULL,
    version_id        uuid NOT NULL,
    document_id       uuid NOT NULL,
    run_id            uuid NOT NULL,
    schema_name       text NOT NULL,
    -- {field: [{raw, normalized, span, page, confidence}]} and the validated object
    fields            jsonb NOT NULL,
    data              jsonb NOT NULL,
    engine            text NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, version_id),
    FOREIGN KEY (tenant_id, document_id) REFERENCES documents (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, version_id) REFERENCES document_versions (tenant_id, id) ON DELETE CASCADE
);

CREATE TABLE summaries (
    tenant_id         uuid NOT NULL,
    version_id        uuid NOT NULL,
    document_id       uuid NOT NULL,
    run_id            uuid NOT NULL,
    -- [{text, citations: [{span, page}]}]
    sentences         jsonb NOT NULL,
    engine            text NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, version_id),
    FOREIGN KEY (tenant_id, document_id) REFERENCES documents (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, version_id) REFERENCES document_versions (tenant_id, id) ON DELETE CASCADE
);

CREATE TABLE answers (
    tenant_id         uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    id                uuid NOT NULL,
    principal_id      uuid NOT NULL,
    question_sha256   text NOT NULL,
    -- Sentences with citations as ids, spans and quote hashes; the quote is read from canonical text.
    snapshot          jsonb NOT NULL,
    -- The documents it cites: what a deletion looks for.
    document_ids      uuid[] NOT NULL DEFAULT '{}',
    engine            text NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX answers_documents ON answers USING gin (document_ids);

-- What readers said of an answer, for evaluation. The comment goes when a document the answer cites is deleted.
CREATE TABLE answer_feedback (
    tenant_id         uuid NOT NULL,
    id                uuid NOT NULL,
    answer_id         uuid NOT NULL,
    principal_id      uuid NOT NULL,
    verdict           text NOT NULL CHECK (verdict IN ('helpful', 'not_helpful', 'wrong_citation')),
    -- Which sentence and which of its citations, from 0.
    sentence          integer,
    citation          integer,
    comment           text CHECK (char_length(comment) <= 4000),
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, answer_id) REFERENCES answers (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX answer_feedback_answer ON answer_feedback (tenant_id, answer_id);

-- Conversations: what was asked, and the ids of what was answered. The words of documents are read from canonical text;
-- only the notes may hold some, and go when a document behind them is deleted.
CREATE TABLE conversations (
    tenant_id         uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    id                uuid NOT NULL,
    principal_id      uuid NOT NULL,
    -- Shortened memory of the messages up to notes_until.
    notes             text NOT NULL DEFAULT '',
    notes_until       integer NOT NULL DEFAULT 0,
    messages          integer NOT NULL DEFAULT 0,
    ttl_secs          bigint NOT NULL CHECK (ttl_secs > 0),
    expires_at        timestamptz NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX conversations_expiry ON conversations (tenant_id, expires_at);

CREATE TABLE conversation_messages (
    tenant_id         uuid NOT NULL,
    conversation_id   uuid NOT NULL,
    number            integer NOT NULL CHECK (number >= 1),
    -- As it was asked, and as it was understood; empty once a document behind the answer was deleted.
    question          text NOT NULL,
    standalone        text NOT NULL,
    answer_id         uuid NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, conversation_id, number),
    FOREIGN KEY (tenant_id, conversation_id) REFERENCES conversations (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, answer_id) REFERENCES answers (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX conversation_messages_answer ON conversation_messages (tenant_id, answer_id);

-- Answers of models that would be given again. They may hold words of the documents they rest on, and go with them.
CREATE TABLE model_cache (
    tenant_id         uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    key               text NOT NULL,
    response          text NOT NULL,
    tokens_in         bigint NOT NULL,
    tokens_out        bigint NOT NULL,
    document_ids      uuid[] NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, key)
);
CREATE INDEX model_cache_documents ON model_cache USING gin (document_ids);
CREATE INDEX model_cache_age ON model_cache (tenant_id, created_at);

-- Prompts of the installation: versions never change, and of the rules the newest holds.
CREATE TABLE prompt_versions (
    name              text NOT NULL,
    version           integer NOT NULL CHECK (version >= 1),
    text              text NOT NULL,
    sha256            text NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, version)
);

CREATE TABLE prompt_rollouts (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name              text NOT NULL,
    -- {version, share: {version, percent}, tenants: {id: version}}
    rule              jsonb NOT NULL,
    -- The entry a rollback went back to.
    restores          bigint REFERENCES prompt_rollouts (id),
    principal_id      uuid,
    created_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX prompt_rollouts_newest ON prompt_rollouts (name, id DESC);

-- ---------------------------------------------------------------------------------------------------------------
-- Notifications
CREATE TABLE webhook_endpoints (
    tenant_id         uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    id                uuid NOT NULL,
    url               text NOT NULL,
    -- Current secret first; older ones stay valid until rotated out.
    secrets           text[] NOT NULL CHECK (cardinality(secrets) BETWEEN 1 AND 3),
    events            text[] NOT NULL DEFAULT '{document.settled}',
    disabled_at       timestamptz,
    disabled_reason   text,
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
);

CREATE TABLE deliveries (
    tenant_id         uuid NOT NULL,
    id                uuid NOT NULL,
    endpoint_id       uuid NOT NULL,
    document_id       uuid NOT NULL,
    run_id            uuid NOT NULL,
    payload           jsonb NOT NULL,
    state             text NOT NULL DEFAULT 'ready' CHECK (state IN ('ready', 'done', 'dead')),
    attempts          integer NOT NULL DEFAULT 0,
    next_at           timestamptz NOT NULL DEFAULT now(),
    lease_until       timestamptz,
    fence             bigint NOT NULL DEFAULT 0,
    last_status       integer,
    code              text,
    created_at        timestamptz NOT NULL DEFAULT now(),
    finished_at       timestamptz,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, endpoint_id, run_id),
    FOREIGN KEY (tenant_id, endpoint_id) REFERENCES webhook_endpoints (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, document_id) REFERENCES documents (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX deliveries_due ON deliveries (next_at) WHERE state = 'ready';

-- ---------------------------------------------------------------------------------------------------------------
-- Deletions: what was removed, and what that leaves which others may share. The rest is condemned: it goes once no run
-- begun before is open and nothing else uses it; runs begun later that need it take it out by a newer created_at. A row
-- stays as the receipt: ids, counts and hashes only, and no longer the hashes once it is finished.
CREATE TABLE deletions (
    tenant_id         uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    id                uuid NOT NULL,
    -- document | collection: somebody asked; retention: a rule ran out; collect: nothing used it any more
    cause             text NOT NULL CHECK (cause IN ('document', 'collection', 'retention', 'collect')),
    -- Id of the document, name of the collection; empty for a collection of what is unused.
    subject           text NOT NULL,
    principal_id      uuid,
    -- What is gone so far, by kind.
    counts            jsonb NOT NULL DEFAULT '{}',
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- False while a collection still holds documents to remove.
    rows_removed      boolean NOT NULL DEFAULT true,
    -- Runs begun before this moment may rely on what is condemned; set by the first look after the commit.
    waits_for         timestamptz,
    -- A signed URL outlives its document: not finished before it has run out.
    finish_after      timestamptz NOT NULL DEFAULT now(),
    finished_at       timestamptz,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX deletions_open ON deletions (created_at) WHERE finished_at IS NULL;
CREATE INDEX deletions_listing ON deletions (tenant_id, created_at DESC, id DESC);

-- What a deletion has still to take away when nothing else of the tenant uses it.
CREATE TABLE condemned (
    tenant_id         uuid NOT NULL,
    deletion_id       uuid NOT NULL,
    -- vector, artifact, accepted (SHA-256 in hexadecimal digits of the embedded text, the artifact, the accepted file);
    -- upload (key of the object)
    kind              text NOT NULL CHECK (kind IN ('vector', 'artifact', 'accepted', 'upload')),
    name              text NOT NULL,
    PRIMARY KEY (tenant_id, deletion_id, kind, name),
    FOREIGN KEY (tenant_id, deletion_id) REFERENCES deletions (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX condemned_name ON condemned (tenant_id, kind, name);

-- Tenants that are being removed or are gone: the receipt outlives the tenant, so it belongs to none.
CREATE TABLE tenant_deletions (
    tenant            uuid PRIMARY KEY,
    counts            jsonb NOT NULL DEFAULT '{}',
    created_at        timestamptz NOT NULL DEFAULT now(),
    rows_removed_at   timestamptz,
    finished_at       timestamptz
);

-- ---------------------------------------------------------------------------------------------------------------
-- Operation: replays, audit, usage, quotas, idempotency
CREATE TABLE replays (
    tenant_id         uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    id                uuid NOT NULL,
    principal_id      uuid,
    filter            jsonb NOT NULL,
    plan              jsonb NOT NULL,
    state             text NOT NULL DEFAULT 'running' CHECK (state IN ('planned', 'running', 'paused', 'done', 'cancelled')),
    created_at        timestamptz NOT NULL DEFAULT now(),
    finished_at       timestamptz,
    PRIMARY KEY (tenant_id, id)
);

CREATE TABLE audit_log (
    tenant_id         uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    seq               bigint NOT NULL,
    principal_id      uuid,
    action            text NOT NULL,
    subject           text NOT NULL,
    data              jsonb NOT NULL DEFAULT '{}',
    at                timestamptz NOT NULL DEFAULT now(),
    -- SHA-256 over the previous hash and this row: an edited, removed or reordered row is detected.
    previous_hash     bytea NOT NULL,
    hash              bytea NOT NULL,
    PRIMARY KEY (tenant_id, seq)
);

CREATE TABLE ledger (
    tenant_id         uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    id                bigint GENERATED ALWAYS AS IDENTITY,
    -- embed | ocr | answers | extract | summarize | rewrite
    feature           text NOT NULL,
    task              text NOT NULL,
    provider          text NOT NULL,
    model             text NOT NULL,
    prompt_version    text,
    document_id       uuid,
    job_id            uuid,
    fence             bigint,
    units             bigint NOT NULL DEFAULT 0,
    tokens_in         bigint NOT NULL DEFAULT 0,
    tokens_out        bigint NOT NULL DEFAULT 0,
    tokens_cached     bigint NOT NULL DEFAULT 0,
    cost_microusd     bigint NOT NULL DEFAULT 0,
    latency_millis    bigint NOT NULL DEFAULT 0,
    outcome           text NOT NULL DEFAULT 'done',
    -- Host the request went to.
    endpoint          text,
    conversation_id   uuid,
    stage             text,
    -- Which request of the call, from 1; 0 for an answer that was remembered.
    attempt           integer,
    at                timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX ledger_usage ON ledger (tenant_id, at, feature);
CREATE UNIQUE INDEX ledger_once ON ledger (tenant_id, job_id, feature, task) WHERE job_id IS NOT NULL AND outcome = 'committed';

CREATE TABLE quota_counters (
    tenant_id         uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    name              text NOT NULL,
    window_start      timestamptz NOT NULL,
    used              bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, name, window_start)
);

CREATE TABLE idempotency_keys (
    tenant_id         uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    principal_id      uuid NOT NULL,
    key               text NOT NULL CHECK (octet_length(key) BETWEEN 1 AND 255),
    request_sha256    text NOT NULL,
    status            integer,
    response          jsonb,
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, principal_id, key)
);

-- ---------------------------------------------------------------------------------------------------------------
-- Row-level security: every table with a tenant_id, ENABLE and FORCE, USING and WITH CHECK
DO $$
DECLARE
    t text;
BEGIN
    FOR t IN
        SELECT c.table_name FROM information_schema.columns c
        JOIN information_schema.tables i USING (table_schema, table_name)
        WHERE c.table_schema = 'public' AND c.column_name = 'tenant_id' AND i.table_type = 'BASE TABLE'
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY tenant ON %I TO docmill_app USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant())', t);
    END LOOP;
    ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
    ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
    CREATE POLICY tenant ON tenants TO docmill_app USING (id = current_tenant()) WITH CHECK (id = current_tenant());
    -- A tenant sees what stops it, and stops no other tenant.
    ALTER TABLE pauses ENABLE ROW LEVEL SECURITY;
    ALTER TABLE pauses FORCE ROW LEVEL SECURITY;
    CREATE POLICY tenant ON pauses TO docmill_app USING (kind <> 'tenant' OR subject = current_tenant()::text)
        WITH CHECK (kind <> 'tenant' OR subject = current_tenant()::text);
    -- Foreign-key checks and migrations run as the owner, who is bound by FORCE like anybody else.
    FOR t IN SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'
    LOOP
        IF (SELECT relrowsecurity FROM pg_class WHERE oid = format('public.%I', t)::regclass) THEN
            EXECUTE format('CREATE POLICY owner ON %I TO docmill_owner USING (true) WITH CHECK (true)', t);
        END IF;
    END LOOP;
    -- The engine crosses tenants on these tables only, and below only on columns without text.
    FOREACH t IN ARRAY ARRAY['tenants', 'api_keys', 'principals', 'runs', 'jobs', 'attempts', 'outbox', 'index_heads', 'index_ops',
                             'index_watermarks', 'deliveries', 'documents', 'document_versions', 'generations', 'deletions', 'pauses', 'replays']
    LOOP
        EXECUTE format('CREATE POLICY engine ON %I TO docmill_engine USING (true) WITH CHECK (true)', t);
    END LOOP;
END $$;

-- ---------------------------------------------------------------------------------------------------------------
-- Grants
GRANT USAGE ON SCHEMA public TO docmill_app, docmill_engine;

GRANT SELECT, INSERT, UPDATE, DELETE ON
    documents, document_versions, document_events, runs, jobs, attempts, outbox, artifacts, stage_cache, generations,
    chunks, vectors, extractions, summaries, answers, answer_feedback, conversations, conversation_messages, model_cache,
    webhook_endpoints, deliveries, replays, ledger, quota_counters,
    idempotency_keys, api_keys, principals TO docmill_app;
GRANT SELECT, UPDATE ON tenants TO docmill_app;
GRANT SELECT, INSERT, UPDATE ON deletions TO docmill_app;
GRANT SELECT, INSERT, DELETE ON condemned TO docmill_app;
GRANT INSERT, DELETE ON pauses TO docmill_app;
GRANT SELECT, INSERT ON audit_log, index_ops TO docmill_app;
GRANT SELECT, INSERT, UPDATE ON index_heads TO docmill_app;
GRANT SELECT ON embedding_spaces, index_nodes, index_watermarks, pauses TO docmill_app;
GRANT SELECT, INSERT ON pipeline_versions, prompt_versions, prompt_rollouts TO docmill_app, docmill_engine;

GRANT SELECT, INSERT, UPDATE (settings, max_file_bytes) ON tenants TO docmill_engine;
GRANT SELECT, INSERT ON principals TO docmill_engine;
GRANT SELECT, INSERT, UPDATE (last_used_at, revoked_at) ON api_keys TO docmill_engine;
GRANT SELECT, UPDATE ON runs, jobs TO docmill_engine;
GRANT SELECT, INSERT, UPDATE ON attempts TO docmill_engine;
GRANT SELECT, INSERT, UPDATE, DELETE ON outbox TO docmill_engine;
GRANT SELECT ON index_heads, index_ops TO docmill_engine;
GRANT DELETE ON index_ops TO docmill_engine;
GRANT SELECT, INSERT, UPDATE, DELETE ON index_nodes, index_watermarks, pauses, parked_events TO docmill_engine;
GRANT SELECT (tenant_id, id, endpoint_id, state, attempts, next_at, lease_until, fence, created_at, finished_at) ON deliveries TO docmill_engine;
GRANT SELECT (tenant_id, id, state, code, visible_generation, visible_version, created_at, updated_at, retention_until, deleted_at),
      UPDATE (state, code, updated_at) ON documents TO docmill_engine;
GRANT SELECT (tenant_id, id, document_id, number, size_bytes, sha256, pipeline_version, upload_state, upload_key, upload_expires_at, accepted_at, created_at),
      UPDATE (upload_state) ON document_versions TO docmill_engine;
GRANT SELECT (tenant_id, id, document_id, version_id, chunk_count, state, created_at, visible_at, retired_at) ON generations TO docmill_engine;
GRANT SELECT (tenant_id, id, cause, created_at, rows_removed, finish_after, finished_at) ON deletions TO docmill_engine;
GRANT SELECT, INSERT, UPDATE ON tenant_deletions TO docmill_engine;
GRANT DELETE ON tenants TO docmill_engine;
GRANT SELECT (tenant_id, id, state, created_at, finished_at) ON replays TO docmill_engine;
GRANT SELECT ON embedding_spaces TO docmill_engine;
GRANT UPDATE (fingerprint) ON embedding_spaces TO docmill_engine;
