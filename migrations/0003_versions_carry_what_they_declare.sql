-- A version carries the name, metadata and labels it was declared with, and the document takes them over when the
-- version becomes visible. Until then, and for ever when the version fails, what answers is described as it was.
-- NULL: a version from before this migration, whose document has them.
ALTER TABLE document_versions
    ADD COLUMN name     text CHECK (octet_length(name) BETWEEN 1 AND 255),
    ADD COLUMN metadata jsonb,
    ADD COLUMN labels   text[];
