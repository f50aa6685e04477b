"""A burst of uploads of one tenant: is it taken in, what does it cost, and how long does a small tenant beside it wait?

    python3 deploy/bench/stack/burst.py [--documents 10000] [--within 60] [--small 10] [--drain] [--home DIR] [--json]

Uses target/release/docmill (or --binary), a DOCMILL_HOME of its own, and nothing outside Python's standard library. Linux
only: memory is VmHWM, the highest resident size a process ever had, from /proc. Ends with 1 when a limit is missed or could
not be measured. README.md beside this file says what is measured and how.
"""
import argparse
import collections
import hashlib
import http.client
import json
import multiprocessing
import os
import pathlib
import queue
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

from measure import Stack, difference

MEMORY_LIMIT_MB, STATUS_LIMIT_MS, FAIRNESS_LIMIT = 512, 250, 2.0
SETTLED = {"done", "partial", "failed"}
OPEN = ("blocked", "ready", "running", "retrying")
SCOPES = "upload,query,content:read,operate,admin"
PROBE_EVERY, PROBERS = 0.05, 8
GRACE = 600
KEPT_LOOK = 2.1  # the backlog that is told may be two seconds old


class Client:
    """One keep-alive connection to the API with one key, and one to the object store."""

    def __init__(self, url, key):
        self.host, self.key, self.connections = urllib.parse.urlsplit(url).netloc, key, {}

    def send(self, host, method, path, body, headers):
        """Status and bytes of the answer. A connection that the server closed while idle is opened once more."""
        for last in (False, True):
            connection = self.connections.setdefault(host, http.client.HTTPConnection(host, timeout=120))
            try:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                return answer.status, answer.read()
            except (http.client.HTTPException, OSError):
                connection.close()
                del self.connections[host]
                if last:
                    raise

    def ask(self, method, path, body=None):
        headers = {"Authorization": "Bearer " + self.key, "Content-Type": "application/json"}
        status, content = self.send(self.host, method, path, None if body is None else json.dumps(body), headers)
        if status >= 400:
            raise Refused(method, path, status, content)
        return json.loads(content)

    def upload(self, name, content, collection, content_type="text/plain", **more):
        """Declares, PUTs and completes; the id and the milliseconds of the three steps. `more` are further fields of the
        declaration."""
        marks = [time.monotonic()]
        created = self.ask("POST", "/v1/documents", declaration(name, content, collection, content_type, **more))
        marks.append(time.monotonic())
        if created["deduplicated"]:
            raise ValueError(f"{name} was there already")
        target = urllib.parse.urlsplit(created["upload"]["url"])
        status, answer = self.send(target.netloc, "PUT", f"{target.path}?{target.query}", content, created["upload"]["headers"])
        if status >= 400:
            raise Refused("PUT", "the object store", status, answer)
        marks.append(time.monotonic())
        self.ask("POST", f"/v1/documents/{created['id']}/complete")
        marks.append(time.monotonic())
        return created["id"], [(after - before) * 1000 for before, after in zip(marks, marks[1:])]

    def failed(self):
        return self.ask("GET", "/v1/documents?state=failed&limit=200")["documents"]

    def open_jobs(self):
        return sum(row[state] for row in self.ask("GET", "/v1/operate/backlog")["stages"] for state in OPEN)


def declaration(name, content, collection, content_type="text/plain", **more):
    return {"name": name, "content_type": content_type, "size": len(content), "collection": collection,
            "sha256": hashlib.sha256(content).hexdigest(), **more}


class Refused(Exception):
    def __init__(self, method, path, status, content):
        try:
            code = json.loads(content).get("code", "")
        except ValueError:
            code = content[:200].decode(errors="replace")
        super().__init__(f"{status} {code}")
        self.where = f"{method} {path}"


def text(tenant, number):
    """About 600 bytes that no other document holds."""
    return (f"Delivery note {number} of {tenant}\n\nThe gearbox with serial number {tenant}-{number:06} was delivered on 12 March "
            f"2025. Its weight is {100 + number % 400} kg and its price {number * 7 % 9000 + 100} euros. The recipient checked "
            f"the seals, the oil level and the packing list, and found {number % 9} of 9 parts in order.\n\nParts that are "
            f"missing are sent within {number % 20 + 2} days. Until then the invoice {number * 31 + 5} is not due, and the "
            f"warranty of the parts delivered begins with the day of the note. Questions go to office {number % 50}.\n").encode()


def uploader(url, key, mine, start, interval, results):
    """A process: uploads its share, each document not before its time, and tells of each how it went."""
    client = Client(url, key)
    for number in mine:
        time.sleep(max(0.0, start + number * interval - time.monotonic()))
        try:
            document, steps = client.upload(f"burst-{number}.txt", text("burst", number), "burst")
            results.put((document, steps, time.monotonic(), None))
        except Exception as error:  # whatever it was, the document was not taken in, and the report says why
            results.put((None, None, time.monotonic(), str(error) or repr(error)))


def prober(url, key, documents, stop, results):
    """A process: one question about the state of things every 50 ms, whether or not the ones before were answered, as far as
    its threads reach. Latency counts from the moment the question was due."""
    known, samples, failed, lock = [], [], {}, threading.Lock()
    begin = time.monotonic()

    def probe(lane):
        client, turn = Client(url, key), lane
        while not stop.is_set():
            due = begin + turn * PROBE_EVERY
            time.sleep(max(0.0, due - time.monotonic()))
            with lock:
                while True:
                    try:
                        known.append(documents.get_nowait())
                    except queue.Empty:
                        break
                document = known[turn * 7919 % len(known)] if known else None
            route = ("document", "backlog", "failed")[turn % 3]
            if route == "document" and document is None:
                route = "backlog"
            paths = {"document": f"/v1/documents/{document}", "backlog": "/v1/operate/backlog",
                     "failed": "/v1/documents?state=failed&limit=200"}
            error, answer = None, {}
            try:
                answer = client.ask("GET", paths[route])
            except Exception as problem:
                error = str(problem) or repr(problem)
            waited = (time.monotonic() - due) * 1000
            with lock:
                samples.append((route, waited, error))
                seen = answer.get("documents", []) if route == "failed" else [answer] if answer.get("state") == "failed" else []
                failed.update((one["id"], one.get("code")) for one in seen)
            turn += PROBERS

    lanes = [threading.Thread(target=probe, args=(lane,)) for lane in range(PROBERS)]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    results.put((samples, failed))


class Prober:
    """The questions about the state of things, from now until `finish`."""

    def __init__(self, url, key):
        processes = multiprocessing.get_context("fork")
        self.documents, self.seen, self.stop = processes.Queue(), processes.Queue(), processes.Event()
        self.process = processes.Process(target=prober, args=(url, key, self.documents, self.stop, self.seen), daemon=True)
        self.process.start()

    def finish(self):
        """Samples, and the documents that were shown as failed."""
        self.stop.set()
        found = self.seen.get(timeout=GRACE)
        self.process.join()
        return found


class Memory(threading.Thread):
    """Highest VmHWM of one process, by kind, looked at every second."""

    def __init__(self, stack):
        super().__init__(daemon=True)
        self.stack, self.peaks, self.done = stack, collections.Counter(), threading.Event()

    def look(self):
        for process, kind in self.stack.processes().items():
            try:
                lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
                peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
                self.peaks[kind] = max(self.peaks[kind], round(peak))
            except (OSError, StopIteration):
                pass

    def run(self):
        while not self.done.wait(1):
            self.look()

    def finish(self):
        self.done.set()
        self.join()
        self.look()
        return dict(sorted(self.peaks.items()))


def quantiles(values):
    ordered = sorted(values)
    if not ordered:
        return {"n": 0}
    return {"n": len(ordered), "p50_ms": round(ordered[len(ordered) // 2], 1),
            "p99_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 1), "max_ms": round(ordered[-1], 1)}


def small_tenant(client, number, collection, patience):
    """Seconds from the first declaration until all documents are settled, and their states; None when they never were."""
    started = time.monotonic()
    for each in range(number):
        client.upload(f"{collection}-{each}.txt", text(collection, each), collection)
    uploaded = time.monotonic() - started
    while time.monotonic() - started < patience:
        documents = client.ask("GET", f"/v1/documents?collection={collection}&limit=200")["documents"]
        states = collections.Counter(document["state"] for document in documents)
        if sum(states[state] for state in SETTLED) == number:
            return {"seconds": round(time.monotonic() - started, 2), "of_it_uploading": round(uploaded, 2), "states": states}
        time.sleep(0.05)
    return {"seconds": None, "of_it_uploading": round(uploaded, 2), "states": states}


def small_tenants(client, number, phase):
    """The small tenant three times, one after the other."""
    return [small_tenant(client, number, f"{phase}-{each}", GRACE) for each in range(3)]


def second_tenant(stack):
    """A key of another tenant is made in the database, as the owner of an installation does it (deploy/README.md); address and
    secrets are those of the stack that was just started."""
    secret = {name: pathlib.Path(stack.home, "secrets", name).read_text().strip()
              for name in ("docmill_app.password", "docmill_engine.password", "pepper")}
    socket = urllib.parse.quote(f"{stack.home}/run", safe="")
    url = "postgres:///docmill?host={}&user={}&password={}"
    settings = {"DOCMILL_DATABASE_URL": url.format(socket, "docmill_app", secret["docmill_app.password"]),
                "DOCMILL_DATABASE_ENGINE_URL": url.format(socket, "docmill_engine", secret["docmill_engine.password"]),
                "DOCMILL_PEPPER": secret["pepper"]}
    beside = Stack(stack.binary, stack.home, settings)
    beside.environment.pop("DOCMILL_API_KEY", None)
    return beside.run("keys", "create", "--tenant", "small", "--name", "small", "--scopes", SCOPES)["key"]


def queued_but_failed(client, failed):
    """Of the documents seen as failed, those of which no stage failed: they were only waiting."""
    wrong = []
    for document in failed:
        events = client.ask("GET", f"/v1/documents/{document}/events?limit=200")["events"]
        if not any(event["kind"] == "stage.failed" for event in events):
            wrong.append(document)
    return wrong


def burst(stack, url, key, small, options):
    """The small tenant alone, then the burst with everything that is looked at meanwhile, and the small tenant behind it. The
    questions about the state of things are asked all the time: what differs for the small tenant is the large one."""
    client = Client(url, key)
    probe_key = client.ask("POST", "/v1/keys", {"name": "prober", "scopes": SCOPES.split(","), "labels": []})["key"]
    quiet = Prober(url, probe_key)
    quiet.documents.put(client.upload("quiet.txt", text("quiet", 0), "quiet")[0])
    alone = small_tenants(small, options.small, "alone")
    quiet.finish()
    processes = multiprocessing.get_context("fork")
    results = processes.Queue()
    memory, before = Memory(stack), stack.cpu()
    watcher = Prober(url, probe_key)
    start = time.monotonic() + 1
    interval = options.within / options.documents
    clients = [processes.Process(daemon=True, target=uploader,
                                 args=(url, key, range(first, options.documents, options.clients), start, interval, results))
               for first in range(options.clients)]
    for process in clients:
        process.start()
    memory.start()
    try:
        steps, errors, ends = [], collections.Counter(), []
        for _ in range(options.documents):
            document, taken, ended, error = results.get(timeout=GRACE)
            ends.append(ended)
            if error:
                errors[error] += 1
            else:
                steps.append(taken)
                watcher.documents.put(document)
        seconds = max(ends) - start
        in_time = sum(ended - start <= options.within for ended in ends) - sum(errors.values())
        intake = difference(before, stack.cpu())
        waiting = client.open_jobs()
        beside = small_tenants(small, options.small, "beside")
        time.sleep(KEPT_LOOK)
        left = client.open_jobs()
        report = {
            "intake": {"documents": len(steps), "seconds": round(seconds, 1), "per_minute": round(len(steps) / seconds * 60),
                       "in_time": in_time, "errors": errors, "cpu_secs": intake,
                       **{name: quantiles([step[place] for step in steps])
                          for place, name in enumerate(("declare", "put", "complete"))}},
            "small": {"alone": alone, "beside": beside, "open_jobs_before": waiting, "open_jobs_after": left}}
        if options.drain:
            report["drain"] = drain(client, start, options.documents)
    finally:
        watcher.stop.set()
        for process in clients:
            process.terminate()
    samples, failed = watcher.finish()
    failed.update((one["id"], one.get("code")) for one in client.failed())
    routes = sorted({route for route, _, _ in samples})
    report["status"] = {**{route: quantiles([ms for name, ms, _ in samples if name == route]) for route in routes},
                        "errors": collections.Counter(error for _, _, error in samples if error)}
    report["failed"] = {"documents": len(failed), "codes": collections.Counter(failed.values()),
                        "while_queued": len(queued_but_failed(client, failed))}
    report["memory_peak_mb"] = memory.finish()
    return report


def drain(client, start, documents):
    while client.open_jobs():
        time.sleep(1)
    seconds = time.monotonic() - start
    states, cursor = collections.Counter(), ""
    while cursor is not None:
        page = client.ask("GET", "/v1/documents?collection=burst&limit=200" + (f"&cursor={cursor}" if cursor else ""))
        states.update(document["state"] for document in page["documents"])
        cursor = page.get("next_cursor") and urllib.parse.quote(page["next_cursor"], safe="")
    return {"seconds": round(seconds, 1), "documents_per_second": round(documents / seconds, 2), "states": states}


def verdicts(report, options):
    """Rows of what, figure, limit, whether it holds; None when this run could not show it."""
    intake, small, status = report["intake"], report["small"], report["status"]
    peak = max(report["memory_peak_mb"].items(), key=lambda item: item[1])
    rows = [(f"documents taken in within {options.within} s", intake["in_time"], options.documents,
             intake["in_time"] >= options.documents),
            ("requests of uploads refused or broken", sum(intake["errors"].values()), 0, not intake["errors"]),
            (f"highest memory of one process, MB ({peak[0]})", peak[1], MEMORY_LIMIT_MB, peak[1] <= MEMORY_LIMIT_MB)]
    for route in ("document", "backlog", "failed"):
        name = {"document": "of a document", "backlog": "of the backlog", "failed": "of the failed documents"}[route]
        p99 = status.get(route, {}).get("p99_ms")
        rows.append((f"status {name}, p99 ms", p99, STATUS_LIMIT_MS, None if p99 is None else p99 <= STATUS_LIMIT_MS))
    rows.append(("status requests not answered", sum(status["errors"].values()), 0, not status["errors"]))
    rows.append(("documents reported failed while queued", report["failed"]["while_queued"], 0,
                 report["failed"]["while_queued"] == 0))
    ratio = small["ratio"]
    shown = small["open_jobs_after"] > 0
    rows.append((f"{options.small} documents of the other tenant, times alone", ratio, FAIRNESS_LIMIT,
                 False if ratio is None else ratio <= FAIRNESS_LIMIT if shown else None))
    return [{"what": what, "figure": figure, "limit": limit, "holds": holds} for what, figure, limit, holds in rows]


def table(report):
    for row in report["limits"]:
        word = {True: "holds", False: "MISSED", None: "not measured"}[row["holds"]]
        figure = "-" if row["figure"] is None else row["figure"]
        print(f"{row['what']:58} {figure:>10} {'limit ' + str(row['limit']):>13}  {word}")
    print()
    for name in ("machine", "intake", "small", "status", "failed", "memory_peak_mb", "drain"):
        if name in report:
            print(name, json.dumps(report[name]))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--documents", type=int, default=10_000)
    arguments.add_argument("--within", type=float, default=60, help="seconds over which they are spread")
    arguments.add_argument("--small", type=int, default=10, help="documents of the other tenant, up to 200")
    arguments.add_argument("--clients", type=int, default=16, help="processes that upload")
    arguments.add_argument("--embedding", choices=("hash", "local"), default="hash")
    arguments.add_argument("--drain", action="store_true", help="wait until everything is processed")
    arguments.add_argument("--binary", type=pathlib.Path,
                           default=pathlib.Path(__file__).resolve().parents[3] / "target/release/docmill")
    arguments.add_argument("--home", type=pathlib.Path, help="kept afterwards; its data are removed before")
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    if options.documents < 1 or options.within <= 0 or options.clients < 1 or not 1 <= options.small <= 200:
        arguments.error("--documents, --within and --clients must be above 0, --small from 1 to 200")
    home = (options.home or pathlib.Path(tempfile.mkdtemp(prefix="docmill-burst-"))).resolve()
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o755)  # started by root, the services run as another user
    stack = Stack(options.binary, home, {"DOCMILL_EMBEDDING_PROVIDER": options.embedding,
                                         "DOCMILL_RATE_PER_SEC": "100000", "DOCMILL_RATE_BURST": "100000"})
    stack.run("down")
    shutil.rmtree(home / "data", ignore_errors=True)
    subprocess.run([stack.binary, "setup"], env=stack.environment, check=True, stdout=subprocess.DEVNULL)
    machine = {"cores": os.cpu_count(), "load_before": os.getloadavg()[0], "embedding": options.embedding}
    try:
        status = stack.run("up")
        key = pathlib.Path(status["key_file"]).read_text().strip()
        small = Client(status["url"], second_tenant(stack))
        small_tenant(small, 1, "warm", GRACE)  # first use of parser, index and model is not the small tenant's time alone
        report = burst(stack, status["url"], key, small, options)
    finally:
        stack.run("down")
        if options.home is None:
            shutil.rmtree(home, ignore_errors=True)
    alone, beside = ([each["seconds"] for each in report["small"][phase]] for phase in ("alone", "beside"))
    measured = None not in alone + beside
    report["small"]["ratio"] = round(statistics.median(beside) / statistics.median(alone), 2) if measured else None
    report["machine"] = dict(machine, load_after=os.getloadavg()[0])
    report["limits"] = verdicts(report, options)
    print(json.dumps(report, indent=1)) if options.json else table(report)
    sys.exit(0 if all(row["holds"] for row in report["limits"]) else 1)


if __name__ == "__main__":
    main()
