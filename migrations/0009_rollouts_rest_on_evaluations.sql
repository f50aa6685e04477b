-- A rollout of a prompt may have to rest on what the version measured: figures of a whole suite file, as `docmill eval run
-- --prompt` found them. Rows are never changed; of a version and suite file the newest counts.
CREATE TABLE prompt_evaluations (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name              text NOT NULL,
    version           integer NOT NULL,
    -- Name of the suite file.
    evaluation        text NOT NULL,
    -- [{suite, kind, facts, measures: [{name, value}]}]
    suites            jsonb NOT NULL,
    -- What it failed, in words; empty when it passed.
    failed            text[] NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (name, version) REFERENCES prompt_versions (name, version)
);
CREATE INDEX prompt_evaluations_newest ON prompt_evaluations (name, version, evaluation, id DESC);

GRANT SELECT ON prompt_evaluations TO docmill_app;
GRANT SELECT, INSERT ON prompt_evaluations TO docmill_engine;
