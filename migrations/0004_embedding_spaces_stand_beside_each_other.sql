-- Another embedding model is another space. It is built beside the one that answers, from the chunks that are stored, and
-- takes its place by one row update; both answer by name until one of them is dropped.
ALTER TABLE embedding_spaces
    -- building: some text has no vector yet; ready: none was missing at the last look; dropping: its vectors are going
    ADD COLUMN state       text NOT NULL DEFAULT 'ready' CHECK (state IN ('building', 'ready', 'dropping')),
    ADD COLUMN is_paused   boolean NOT NULL DEFAULT false,
    -- As the builder last counted and went on: texts that should have a vector, and those of them that have none.
    ADD COLUMN texts       bigint NOT NULL DEFAULT 0,
    ADD COLUMN missing     bigint NOT NULL DEFAULT 0,
    -- Vectors the builder made; those of the embed stage are not among them.
    ADD COLUMN embedded    bigint NOT NULL DEFAULT 0,
    ADD COLUMN counted_at  timestamptz,
    ADD COLUMN ready_at    timestamptz,
    -- What the builder last failed with.
    ADD COLUMN code        text,
    -- Who builds, and until when nobody else does.
    ADD COLUMN builder     text,
    ADD COLUMN lease_until timestamptz;

-- The space that answers: one row. A commit that makes a generation visible shares it, a switch takes it for itself.
CREATE TABLE active_spaces (
    only_one          boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    space_id          integer NOT NULL REFERENCES embedding_spaces (id),
    switched_at       timestamptz NOT NULL DEFAULT now()
);
INSERT INTO active_spaces (space_id) VALUES (1);

-- The services create nothing, so the approximate indexes of spaces to come are here already, two for each usual length:
-- one space is built while the other answers. A space of another length takes an id without an index and is scanned
-- exactly, until the owner adds one: a row here for its length, and such an index for its id.
CREATE TABLE space_indexes (
    space_id          integer PRIMARY KEY,
    dimensions        integer NOT NULL CHECK (dimensions BETWEEN 1 AND 2000)
);
INSERT INTO space_indexes (space_id, dimensions)
VALUES (1, 384), (2, 384), (3, 768), (4, 768), (5, 1024), (6, 1024), (7, 1536), (8, 1536);
DO $$
DECLARE
    place record;
BEGIN
    FOR place IN SELECT space_id, dimensions FROM space_indexes WHERE space_id <> 1 LOOP
        EXECUTE format('CREATE INDEX vectors_space_%s ON vectors USING hnsw ((embedding::vector(%s)) vector_cosine_ops)
                        WITH (m = 16, ef_construction = 64) WHERE space_id = %s', place.space_id, place.dimensions, place.space_id);
    END LOOP;
END $$;
-- For the foreign key: whether a space still has vectors.
CREATE INDEX vectors_space ON vectors (space_id);

-- Receipts of dropped spaces.
CREATE TABLE space_drops (
    id                uuid PRIMARY KEY,
    space_id          integer NOT NULL,
    name              text NOT NULL,
    dimensions        integer NOT NULL,
    fingerprint       text,
    -- Vectors removed so far.
    vectors           bigint NOT NULL DEFAULT 0,
    -- Runs begun before this moment may still write into the space: it goes when they have settled.
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at       timestamptz
);
CREATE UNIQUE INDEX space_drops_open ON space_drops (space_id) WHERE finished_at IS NULL;
CREATE INDEX space_drops_listing ON space_drops (created_at DESC, id DESC);

GRANT SELECT ON active_spaces, space_indexes, space_drops TO docmill_app, docmill_engine;
GRANT INSERT, UPDATE ON embedding_spaces TO docmill_app;
GRANT UPDATE (space_id, switched_at) ON active_spaces TO docmill_app;
GRANT INSERT ON space_drops TO docmill_app;
GRANT UPDATE (vectors) ON space_drops TO docmill_app;
GRANT UPDATE, DELETE ON embedding_spaces TO docmill_engine;
GRANT UPDATE (finished_at) ON space_drops TO docmill_engine;
