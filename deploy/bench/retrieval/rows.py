"""Passages for the growth benchmark, and the rows a stack of Docmill would hold of them.

Up to 20,000 passages are windows of three sentences of a BEIR corpus, embedded for real. Beyond, each is a jittered copy of one
of them: every seventh word is replaced by another one of the corpus, and the vector is moved by noise a quarter of its length.
"""

import hashlib
import re
import uuid

import numpy as np
from psycopg import sql

REAL = 20_000
SENTENCES = 3
NOISE = 0.25
REPLACED = 7
# Passages of one document.
DOCUMENT = 50


def real_passages(entries, most=REAL):
    """Windows of three sentences, each text once."""
    found = {}
    for entry in entries:
        sentences = re.split(r"(?<=[.!?])\s+", entry["text"].strip())
        for start in range(0, len(sentences), SENTENCES):
            text = " ".join(sentences[start : start + SENTENCES])
            if len(text) >= 40:
                found.setdefault(text[:1500], None)
            if len(found) == most:
                return list(found)
    return list(found)


def grown(texts, vectors, start, end):
    """Passages `start`..`end` with their vectors: the real ones, then jittered copies, always the same by number."""
    words = sorted({word for text in texts[:2000] for word in text.split()})
    for number in range(start, end):
        base = number % len(texts)
        if number < len(texts):
            yield texts[base], vectors[base]
            continue
        generator = np.random.default_rng(number)
        changed = texts[base].split()
        for place in range(int(generator.integers(0, REPLACED)), len(changed), REPLACED):
            changed[place] = words[int(generator.integers(0, len(words)))]
        noise = generator.standard_normal(vectors.shape[1]).astype(np.float32)
        moved = vectors[base] + NOISE * noise / np.linalg.norm(noise)
        yield " ".join(changed) + f" [{number}]", moved / np.linalg.norm(moved)


def insert(connection, tenant, passages):
    """Documents of fifty passages each, visible, with the operations that index nodes follow. Returns chunk ids in order."""
    chunk_ids = []
    pipeline = connection.execute("SELECT version FROM pipeline_versions LIMIT 1").fetchone()[0]
    tables = {name: [] for name in ("documents", "document_versions", "generations", "chunks", "vectors", "index_ops")}
    seq = connection.execute(
        "INSERT INTO index_heads (tenant_id) VALUES (%s) ON CONFLICT (tenant_id) DO UPDATE SET seq = index_heads.seq RETURNING seq",
        [tenant],
    ).fetchone()[0]
    for start in range(0, len(passages), DOCUMENT):
        part = passages[start : start + DOCUMENT]
        document, version, generation = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
        digest = hashlib.sha256(document.bytes).hexdigest()
        seq += 1
        tables["documents"].append((tenant, document, f"{document}.txt", "done", generation, version))
        tables["document_versions"].append((tenant, version, document, 1, "text/plain", 1, digest, pipeline, "none"))
        tables["generations"].append((tenant, generation, document, version, "none", len(part), "visible"))
        tables["index_ops"].append((tenant, seq, "add", generation))
        at = 0
        for ordinal, (text, vector) in enumerate(part):
            chunk, key = uuid.uuid4(), hashlib.sha256(text.encode()).digest()
            chunk_ids.append(chunk)
            row = (tenant, chunk, generation, document, ordinal, key, at, at + len(text), text, len(text.split()), "eng")
            tables["chunks"].append(row)
            tables["vectors"].append((tenant, 1, key, vector))
            at += len(text) + 1
    copy(connection, "documents", "tenant_id id name state visible_generation visible_version", tables)
    connection.execute("ALTER TABLE document_versions ALTER upload_expires_at SET DEFAULT now()")
    copy(connection, "document_versions", "tenant_id id document_id number content_type size_bytes sha256 pipeline_version upload_key", tables)
    connection.execute("ALTER TABLE document_versions ALTER upload_expires_at DROP DEFAULT")
    copy(connection, "generations", "tenant_id id document_id version_id chunks_sha256 chunk_count state", tables)
    columns = "tenant_id id generation_id document_id ordinal embed_hash char_start char_end text tokens language"
    copy(connection, "chunks", columns, tables)
    copy(connection, "vectors", "tenant_id space_id embed_hash embedding", tables)
    copy(connection, "index_ops", "tenant_id seq op generation_id", tables)
    connection.execute("UPDATE index_heads SET seq = %s, corpus = corpus + 1 WHERE tenant_id = %s", [seq, tenant])
    connection.commit()
    return chunk_ids


def copy(connection, table, columns, tables):
    names = sql.SQL(", ").join(map(sql.Identifier, columns.split()))
    with connection.cursor() as cursor, cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)) as out:
        for row in tables[table]:
            out.write_row(row)
