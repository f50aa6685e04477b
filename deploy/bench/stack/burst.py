"""Ten thousand uploads in a minute: whether the stack stays small and answers, and what a small tenant waits meanwhile.

    python3 deploy/bench/stack/burst.py [--documents 10000] [--within 60] [--small 10] [--drain] [--json]

Uses target/release/docmill (build it first), a fresh DOCMILL_HOME, and nothing outside Python's standard library. The
embedder is `hash`: documents are small texts, so what is measured is the engine, not a model. Linux only.
Exit code: 0 every limit is kept, 1 one is missed.
"""
import argparse
import hashlib
import http.client
import json
import multiprocessing
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

from measure import Stack

#: Limits of the issue this answers: MB of a process, ms of the status API, times the small tenant's time alone.
MEMORY_MB, STATUS_MS, SLOWDOWN = 512, 250, 2.0
UPLOADERS, THREADS = 2, 8
SETTINGS = {"DOCMILL_EMBEDDING_PROVIDER": "hash", "DOCMILL_RATE_PER_SEC": "5000", "DOCMILL_RATE_BURST": "20000"}


class Client:
    """One connection a host, kept alive."""

    def __init__(self, url, key):
        self.url, self.key, self.open = urllib.parse.urlsplit(url), key, {}

    def call(self, method, url, body=None, headers=None):
        target = urllib.parse.urlsplit(url) if "://" in url else self.url._replace(path=url)
        host = target.netloc
        for attempt in (0, 1):
            connection = self.open.get(host) or self.open.setdefault(host, http.client.HTTPConnection(host, timeout=60))
            try:
                connection.request(method, target.path + ("?" + target.query if target.query else ""), body, headers or {})
                answer = connection.getresponse()
                return answer.status, answer.read()
            except (http.client.HTTPException, OSError):
                self.open.pop(host).close()
                if attempt:
                    raise

    def api(self, method, path, body=None):
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        status, answer = self.call(method, path, None if body is None else json.dumps(body), headers)
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {answer[:200]!r}")
        return json.loads(answer) if answer else None

    def upload(self, name):
        content = f"Report {name}.\n\nThe harbour log of {name} holds one entry: the crane was greased and the lamp was trimmed.\n"
        content = content.encode()
        made = self.api("POST", "/v1/documents", {
            "name": f"{name}.txt", "content_type": "text/plain", "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest()})
        status, answer = self.call("PUT", made["upload"]["url"], content, made["upload"]["headers"])
        if status >= 300:
            raise RuntimeError(f"PUT: {status} {answer[:200]!r}")
        self.api("POST", f"/v1/documents/{made['id']}/complete")
        return made["id"]


def uploader(url, key, names, pace, ids, failures):
    """One process of some threads; `pace` is (start, seconds per document of this process)."""
    todo = queue.Queue()
    for entry in enumerate(names):
        todo.put(entry)

    def work():
        client = Client(url, key)
        while True:
            try:
                number, name = todo.get_nowait()
            except queue.Empty:
                return
            wait = pace[0] + number * pace[1] - time.time()
            if wait > 0:
                time.sleep(wait)
            try:
                ids.put(client.upload(name))
            except Exception as error:  # reported, counted, and the rest goes on
                failures.put(str(error))

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]


def settled(client, ids, limit):
    """Seconds until none of these documents is at work; their states."""
    started, states = time.monotonic(), {}
    while time.monotonic() - started < limit:
        for document in ids:
            if states.get(document) not in ("done", "failed"):
                states[document] = client.api("GET", f"/v1/documents/{document}")["state"]
        if all(state in ("done", "failed") for state in states.values()):
            return time.monotonic() - started, states
        time.sleep(0.05)
    return None, states


def small(client, label, count, limit):
    started = time.monotonic()
    ids = [client.upload(f"{label}-{number}") for number in range(count)]
    took, states = settled(client, ids, limit)
    return None if took is None else time.monotonic() - started, states


class Prober(threading.Thread):
    """Asks for states all the time; notes how long that took, and whether anything queued is called failed."""

    def __init__(self, client, known):
        super().__init__(daemon=True)
        self.client, self.known, self.times, self.failed, self.over = client, known, [], 0, False

    def run(self):
        number = 0
        while not self.over:
            path = "/v1/operate/backlog" if number % 2 or not self.known else f"/v1/documents/{self.known[number % len(self.known)]}"
            started = time.monotonic()
            answer = self.client.api("GET", path)
            self.times.append((time.monotonic() - started) * 1000)
            self.failed += answer.get("state") == "failed"
            number += 1
            time.sleep(0.05)

    def percentile(self, share):
        times = sorted(self.times)
        return round(times[min(int(len(times) * share), len(times) - 1)], 1)


def peaks(stack, over, found):
    while not over.is_set():
        for process, kind in stack.processes().items():
            try:
                status = pathlib.Path(f"/proc/{process}/status").read_text()
                peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:")) >> 10
                found[kind] = max(found.get(kind, 0), peak)
            except (OSError, StopIteration):
                pass
        over.wait(0.5)


def measure(stack, options):
    url = stack.run("status")["url"]
    scopes = "upload,query,operate,content:read,admin"
    keys = {}
    for tenant in ("default", "beside"):
        keys[tenant] = stack.run("keys", "create", "--name", "burst", "--scopes", scopes, "--tenant", tenant)["key"]
    # With a key of its own in the environment, the client is not the operator of the default tenant any more.
    beside, operator = Client(url, keys["beside"]), Client(url, keys["default"])
    small(beside, "warm", 2, 60)
    alone, _ = small(beside, "alone", options.small, 120)
    ids, failures = multiprocessing.Queue(), multiprocessing.Queue()
    known, memory, over = [], {}, threading.Event()
    watcher = threading.Thread(target=peaks, args=(stack, over, memory), daemon=True)
    watcher.start()
    prober = Prober(operator, known)
    prober.start()
    start = time.time() + 0.5
    shares = [[f"large-{number}" for number in range(place, options.documents, UPLOADERS)] for place in range(UPLOADERS)]
    pace = (start, options.within / options.documents * UPLOADERS)
    workers = [multiprocessing.Process(target=uploader, args=(url, keys["default"], names, pace, ids, failures)) for names in shares]
    [worker.start() for worker in workers]
    beside_result = None
    while any(worker.is_alive() for worker in workers) or not ids.empty():
        try:
            known.append(ids.get(timeout=0.2))
        except queue.Empty:
            pass
        if beside_result is None and len(known) >= options.documents // 2:
            beside_result = threading.Thread(target=lambda: results.append(small(Client(url, keys["beside"]), "amid", options.small, 900)))
            results = []
            beside_result.start()
    took = time.time() - start
    beside_result.join()
    amid, states = results[0]
    report = {
        "documents": len(known), "not_accepted": failures.qsize(), "uploaded_within_secs": round(took, 1),
        "status_p50_ms": prober.percentile(0.5), "status_p99_ms": prober.percentile(0.99), "status_requests": len(prober.times),
        "small_alone_secs": round(alone, 2), "small_amid_secs": None if amid is None else round(amid, 2),
        "slowdown": None if amid is None else round(amid / alone, 2),
        "queued_called_failed": prober.failed + sum(state == "failed" for state in states.values()),
    }
    if failures.qsize():
        report["first_refusal"] = failures.get()
    if options.drain:
        started, jobs = time.monotonic(), None
        while jobs != 0 and time.monotonic() - started < 7200:
            page = operator.api("GET", "/v1/operate/backlog")
            jobs = sum(row.get("ready", 0) + row.get("running", 0) + row.get("blocked", 0) + row.get("retrying", 0) for row in page["stages"])
            time.sleep(1)
        report["drained_after_secs"] = round(time.time() - start, 1)
    prober.over = True
    prober.join()
    over.set()
    watcher.join()
    report["status_p99_ms"] = prober.percentile(0.99)
    report["peak_memory_mb"] = dict(sorted(memory.items()))
    return report


def judge(report, options):
    checks = [
        ("documents accepted", report["documents"], ">=", options.documents),
        ("uploaded within, seconds", report["uploaded_within_secs"], "<=", options.within * 1.1),
        ("status API p99, ms", report["status_p99_ms"], "<=", STATUS_MS),
        ("largest process, MB of its own memory", max(report["peak_memory_mb"].values()), "<=", MEMORY_MB),
        ("small tenant amid, times alone", report["slowdown"], "<=", SLOWDOWN),
        ("queued and called failed", report["queued_called_failed"], "<=", 0),
    ]
    kept = {"<=": lambda a, b: a is not None and a <= b, ">=": lambda a, b: a >= b}
    return [(name, value, sign, limit, kept[sign](value, limit)) for name, value, sign, limit in checks]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--documents", type=int, default=10_000)
    arguments.add_argument("--within", type=float, default=60, help="seconds for all of them")
    arguments.add_argument("--small", type=int, default=10, help="documents of the small tenant")
    arguments.add_argument("--drain", action="store_true", help="wait for the backlog to end")
    arguments.add_argument("--home", type=pathlib.Path, help="kept afterwards; its data are removed before")
    arguments.add_argument("--binary", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[3] / "target/release/docmill")
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    home = options.home or pathlib.Path(tempfile.mkdtemp(prefix="docmill-burst-"))
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o755)  # started by root, the services run as another user
    os.environ.update(SETTINGS)
    stack = Stack(options.binary, home)
    stack.run("down")
    shutil.rmtree(home / "data", ignore_errors=True)
    subprocess.run([stack.binary, "setup"], env=stack.environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        stack.run("up")
        report = measure(stack, options)
    finally:
        stack.run("down")
        if not options.home:
            shutil.rmtree(home, ignore_errors=True)
    checks = judge(report, options)
    if options.json:
        print(json.dumps(report))
    else:
        for name, value, sign, limit, kept in checks:
            print(f"{'ok    ' if kept else 'MISSED'} {name}: {value} ({sign} {limit:g})")
        print(json.dumps(report, indent=1))
    sys.exit(0 if all(kept for *_, kept in checks) else 1)


if __name__ == "__main__":
    main()
