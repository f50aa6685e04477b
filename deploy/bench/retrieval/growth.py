"""How search grows with the corpus: Docmill beside bare pgvector and Haystack, on the same rows of the same Postgres.

    python growth.py --docmill BIN --model MODEL_DIR --data CORPORA [--home DIR] [--largest 100000] [--questions 300] [--out FILE]

Starts an embedded stack of its own (result cache off), and for 1,000, 10,000 and 100,000 passages (`--largest 1000000` goes on)
writes the rows, waits for the lexical index, and asks SciFact's training claims, one client at a time:

- Docmill: `POST /v1/search`, ten hits, hybrid and each half, HTTP and embedding of the question included; and `/v1/embeddings` alone
- bare pgvector: the nearest ten by SQL, the vector given, `ef_search` as small as recall@10 >= 0.98 allows
- Haystack: its pgvector store, ten by vector and ten by keywords joined by reciprocal ranks, embedding by the same model included

Recall is recall@10 of the vectors against an exact scan. Memory is the proportional set size. Prints a table; `--out` keeps JSON.
"""

import argparse
import http.client
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse

import numpy as np
import psycopg
from pgvector.psycopg import register_vector

import beir
import rows
from minilm import MiniLM

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "stack"))
from measure import Stack  # noqa: E402

SIZES = (1_000, 10_000, 100_000, 1_000_000)
BATCH = 5_000
K = 10
WANTED_RECALL = 0.98
EF_SEARCH = (40, 80, 120, 200, 400, 800)
WARM = 20
PATIENCE_SECS = 3_600


def connect(home):
    """The stack's Postgres, as its superuser: rows of a tenant are written past the API."""
    password = (home / "secrets/postgres.password").read_text().strip()
    connection = psycopg.connect(host=str(home / "run"), user="postgres", password=password, dbname="docmill")
    register_vector(connection)
    return connection


class Api:
    """One connection to the API."""

    def __init__(self, status):
        self.key = pathlib.Path(status["key_file"]).read_text().strip()
        self.connection = http.client.HTTPConnection(urllib.parse.urlparse(status["url"]).netloc)

    def post(self, path, body):
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        self.connection.request("POST", path, json.dumps(body), headers)
        answer = self.connection.getresponse()
        content = json.loads(answer.read())
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {content}")
        return content


def timed(ask, questions):
    """p50 and p99 in ms over all questions, after a few that are not counted; and what came."""
    for question in questions[:WARM]:
        ask(question)
    times, answers = [], []
    for question in questions:
        started = time.perf_counter()
        answers.append(ask(question))
        times.append((time.perf_counter() - started) * 1e3)
    return {"p50_ms": round(float(np.quantile(times, 0.5)), 2), "p99_ms": round(float(np.quantile(times, 0.99)), 2)}, answers


def recall(found, exact):
    return round(float(np.mean([len(set(one) & set(truth)) / len(truth) for one, truth in zip(found, exact)])), 4)


def docmill(api, questions, exact):
    search = lambda mode: lambda question: api.post("/v1/search", {"query": question, "k": K, "mode": mode})
    figures = {}
    for mode in ("hybrid", "lexical", "dense"):
        figures[mode], answers = timed(search(mode), questions)
        if any(answer.get("degraded") or answer.get("cached") for answer in answers):
            raise SystemExit(f"{mode}: a half did not answer, or a result was remembered")
        if mode == "dense":
            figures["recall@10"] = recall([[hit["chunk_id"] for hit in answer["hits"]] for answer in answers], exact)
    figures["embedding"], _ = timed(lambda question: api.post("/v1/embeddings", {"model": "default", "input": question}), questions)
    return figures


def pgvector(connection, vectors, exact):
    """The smallest `ef_search` that reaches the recall, and its times."""
    statement = "SELECT id FROM bare ORDER BY embedding <=> %s LIMIT %s"
    for ef_search in EF_SEARCH:
        connection.execute(f"SET hnsw.ef_search = {ef_search}")
        ask = lambda vector: [str(row[0]) for row in connection.execute(statement, [vector, K])]
        figures, found = timed(ask, vectors)
        figures.update({"ef_search": ef_search, "recall@10": recall(found, exact)})
        if figures["recall@10"] >= WANTED_RECALL:
            break
    connection.commit()
    return figures


class Haystack:
    """Haystack's pgvector store with both retrievers and its joiner."""

    def __init__(self, home, model):
        os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
        from haystack.components.joiners import DocumentJoiner
        from haystack.utils import Secret
        from haystack_integrations.components.retrievers.pgvector import PgvectorEmbeddingRetriever, PgvectorKeywordRetriever
        from haystack_integrations.document_stores.pgvector import PgvectorDocumentStore

        password = (home / "secrets/postgres.password").read_text().strip()
        address = f"host={home / 'run'} user=postgres password={password} dbname=docmill"
        self.store = PgvectorDocumentStore(
            connection_string=Secret.from_token(address),
            embedding_dimension=384,
            search_strategy="hnsw",
            hnsw_index_creation_kwargs={"m": 16, "ef_construction": 64},
            hnsw_ef_search=120,
        )
        self.by_vector = PgvectorEmbeddingRetriever(document_store=self.store, top_k=K)
        self.by_words = PgvectorKeywordRetriever(document_store=self.store, top_k=K)
        self.joiner = DocumentJoiner(join_mode="reciprocal_rank_fusion", top_k=K)
        self.model = model

    def write(self, ids, passages):
        from haystack import Document

        made = [Document(id=str(key), content=text, embedding=vector.tolist()) for key, (text, vector) in zip(ids, passages)]
        self.store.write_documents(made)

    def ask(self, question):
        vector = self.model.embed([question])[0].tolist()
        near = self.by_vector.run(query_embedding=vector)["documents"]
        words = self.by_words.run(query=question)["documents"]
        return self.joiner.run(documents=[near, words])["documents"], [document.id for document in near]

    def measure(self, questions, exact):
        figures, answers = timed(self.ask, questions)
        return {"hybrid": figures, "recall@10": recall([near for _, near in answers], exact)}


def grow(connection, tenant, haystack, texts, vectors, known, size):
    """Adds passages until there are `size`; everybody gets the same."""
    while len(known["ids"]) < size:
        start = len(known["ids"])
        passages = list(rows.grown(texts, vectors, start, min(start + BATCH, size)))
        ids = rows.insert(connection, tenant, passages)
        with connection.cursor() as cursor, cursor.copy("COPY bare (id, embedding) FROM STDIN") as out:
            for key, (_, vector) in zip(ids, passages):
                out.write_row((key, vector))
        connection.commit()
        haystack.write(ids, passages)
        known["ids"].extend(map(str, ids))
        known["vectors"].append(np.stack([vector for _, vector in passages]).astype(np.float32))
        print(f"{len(known['ids'])} passages", file=sys.stderr, flush=True)
    for table in ("chunks", "vectors", "documents", "bare", "haystack_documents"):
        connection.execute(f"ANALYZE {table}")
    connection.commit()
    started = time.monotonic()
    behind = "SELECT h.seq > coalesce(max(w.seq), -1) FROM index_heads h LEFT JOIN index_watermarks w USING (tenant_id) WHERE h.tenant_id = %s GROUP BY h.seq"
    while connection.execute(behind, [tenant]).fetchone()[0]:
        connection.commit()
        if time.monotonic() - started > PATIENCE_SECS:
            raise SystemExit("the lexical index does not catch up")
        time.sleep(0.5)
    connection.commit()


def exact_nearest(known, asked):
    """Ids of the ten nearest by brute force."""
    ids, best = np.array(known["ids"]), None
    scores = np.concatenate([asked @ part.T for part in known["vectors"]], axis=1)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    return [ids[row].tolist() for row in best]


def sizes_mb(connection, home):
    of = lambda name: connection.execute("SELECT pg_total_relation_size(%s) / 1048576", [name]).fetchone()[0]
    found = {table: of(table) for table in ("chunks", "vectors", "bare", "haystack_documents")}
    connection.commit()
    lexical = sum(path.stat().st_size for path in (home / "data/roles/lexical").rglob("*") if path.is_file())
    return {**found, "lexical_index": round(lexical / 2**20)}


def show(size, figures):
    both = lambda times: f"{times['p50_ms']} / {times['p99_ms']}"
    own, bare, peer = figures["docmill"], figures["pgvector"], figures["haystack"]
    memory = figures["memory_mb"]
    print(
        f"| {size:,} | {both(own['hybrid'])} | {both(own['embedding'])} | {own['recall@10']} | {both(bare)} | {bare['recall@10']} ({bare['ef_search']}) "
        f"| {both(peer['hybrid'])} | {peer['recall@10']} | {own['hybrid']['p50_ms'] / peer['hybrid']['p50_ms']:.2f} / {own['hybrid']['p99_ms'] / peer['hybrid']['p99_ms']:.2f} "
        f"| {memory.get('roles', 0)} / {memory.get('postgres', 0)} |",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docmill", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--home", type=pathlib.Path, help="folder of the stack, kept afterwards; its data are removed before")
    parser.add_argument("--largest", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--vectors", help="folder for the vectors of the real passages, kept for the next run")
    parser.add_argument("--out")
    options = parser.parse_args()
    home = options.home or pathlib.Path(tempfile.mkdtemp(prefix="docmill-growth-", dir="/var/tmp"))
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o755)  # started by root, the services run as another user
    folder, model = beir.Folder(pathlib.Path(options.data) / "scifact", "train"), MiniLM(options.model, threads=1)
    questions = [question["text"] for question in folder.questions][: options.questions]
    sizes = [size for size in SIZES if size < options.largest] + [options.largest]
    texts = rows.real_passages(folder.entries, min(rows.REAL, sizes[-1]))
    vectors, asked = embedded(texts, model, options.vectors), model.embed(questions)
    stack = Stack(options.docmill, home)
    stack.environment.update({"DOCMILL_SEARCH_CACHE_MIB": "0", "DOCMILL_RATE_PER_SEC": "100000", "DOCMILL_RATE_BURST": "100000"})
    stack.run("down")
    shutil.rmtree(home / "data", ignore_errors=True)
    subprocess.run([stack.binary, "setup"], env=stack.environment, check=True, stdout=subprocess.DEVNULL)
    report = {"real_passages": len(texts), "questions": len(questions), "sizes": {}}
    try:
        stack.run("up")
        api, connection = Api(stack.run("status")), connect(home)
        tenant = connection.execute("SELECT tenant_id FROM api_keys LIMIT 1").fetchone()[0]
        connection.execute("CREATE TABLE bare (id uuid PRIMARY KEY, embedding vector(384))")
        connection.execute("CREATE INDEX ON bare USING hnsw (embedding vector_cosine_ops) WITH (m = 16, ef_construction = 64)")
        connection.commit()
        haystack, known = Haystack(home, model), {"ids": [], "vectors": []}
        print("p50 / p99 in ms; recall@10 of the vectors against an exact scan; memory in MB\n")
        print("| passages | Docmill hybrid | of it embedding | recall | bare pgvector | recall (ef) | Haystack hybrid | recall | Docmill of Haystack | roles / Postgres |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        for size in sizes:
            grow(connection, tenant, haystack, texts, vectors, known, size)
            exact = exact_nearest(known, asked)
            figures = {
                "docmill": docmill(api, questions, exact),
                "pgvector": pgvector(connection, list(asked), exact),
                "haystack": haystack.measure(questions, exact),
                "memory_mb": stack.memory(),
                "disk_mb": sizes_mb(connection, home),
                "python_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            }
            report["sizes"][size] = figures
            show(size, figures)
            if options.out:
                pathlib.Path(options.out).write_text(json.dumps(report, indent=1))
    finally:
        stack.run("down")
        if options.home is None:
            shutil.rmtree(home, ignore_errors=True)


def embedded(texts, model, folder):
    """Vectors of the real passages, kept where a folder is given."""
    path = pathlib.Path(folder) / f"growth-{len(texts)}.npy" if folder else None
    if path and path.is_file():
        return np.load(path)
    vectors = model.embed(texts)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, vectors)
    return vectors


if __name__ == "__main__":
    main()
