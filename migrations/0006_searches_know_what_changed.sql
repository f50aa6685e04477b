-- Results of searches are remembered until what a search could see changes. Whatever changes that (a generation that becomes
-- visible or goes, a deletion, a new name, metadata or labels of a document) counts here, in its own transaction.
-- The counter shares the row of the feed's, so that a transaction takes one lock, and takes it last.
ALTER TABLE index_heads ADD COLUMN corpus bigint NOT NULL DEFAULT 0;
