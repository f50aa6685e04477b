"""What a stack of its own costs: first start, idle memory and CPU, a folder of files, searches and answers.

    python3 deploy/bench/stack/measure.py FOLDER [--files 100] [--home DIR]

Uses target/release/docmill (build it first), a fresh DOCMILL_HOME, and nothing outside Python's standard library.
Linux only: memory is the proportional set size and CPU the user and system time, both from /proc.
"""
import argparse
import collections
import glob
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request

TICKS = os.sysconf("SC_CLK_TCK")
SUBJECTS = ["gearbox", "licence", "table", "invoice", "installation", "figure one", "text extraction", "error handling",
            "contract parties", "paragraph style", "water level", "delivery date"]
WORDS = ["", "details", "list", "number", "date", "name", "part", "value", "rule", "note"]


class Stack:
    def __init__(self, binary, home, settings=None):
        self.binary, self.home = str(binary), str(home)
        self.environment = dict(os.environ, **(settings or {}), DOCMILL_HOME=self.home)

    def run(self, *arguments):
        done = subprocess.run([self.binary, *arguments, "--json"], env=self.environment, capture_output=True, text=True)
        lines = done.stdout.strip().splitlines()
        if not lines:
            raise SystemExit(f"docmill {' '.join(arguments[:1])} ended with {done.returncode}: {done.stderr[-500:]}")
        return json.loads(lines[-1])

    def processes(self):
        """Process id to kind, of this stack only."""
        found, own = {}, re.compile(re.escape(str(self.home)) + r"(?![^/\s\0:,'\"])")
        for folder in glob.glob("/proc/[0-9]*"):
            try:
                command = pathlib.Path(folder, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                environment = pathlib.Path(folder, "environ").read_bytes().decode(errors="replace")
            except OSError:
                continue
            # Postgres overwrites its environment with its title; its parent still names the folder.
            if any(own.search(text) for text in (environment, command, parent_of(folder, command))):
                kind = next((kind for mark, kind in [("postgres", "postgres"), ("nats-server", "nats"),
                                                     ("object-store", "store"), ("supervise", "supervisor"),
                                                     ("parse-child", "parser"), (" serve", "roles")] if mark in command), None)
                if kind:
                    found[int(folder[6:])] = kind
        return found

    def memory(self):
        sizes = collections.Counter()
        for process, kind in self.processes().items():
            try:
                lines = pathlib.Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
                sizes[kind] += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            except (OSError, StopIteration):
                pass
        return {kind: round(size / 1024) for kind, size in sorted(sizes.items())}

    def cpu(self):
        """Seconds by kind; `embedding` are threads of the roles, `parsing` are the roles' ended and waiting children."""
        seconds = collections.Counter()
        for process, kind in self.processes().items():
            try:
                own, children = cpu_of(f"/proc/{process}/stat")
                seconds["parsing" if kind == "parser" else kind] += own
                if kind == "roles":
                    seconds["parsing"] += children
                    for thread in glob.glob(f"/proc/{process}/task/*"):
                        if pathlib.Path(thread, "comm").read_text().startswith("embed"):
                            embedding, _ = cpu_of(thread + "/stat")
                            seconds["embedding"] += embedding
                            seconds["roles"] -= embedding
            except OSError:
                pass
        return seconds


def parent_of(folder, command):
    if not command.startswith("postgres:"):
        return ""
    try:
        parent = pathlib.Path(folder, "stat").read_text().rsplit(")", 1)[1].split()[1]
        return pathlib.Path("/proc", parent, "cmdline").read_text(errors="replace")
    except OSError:
        return ""


def cpu_of(path):
    fields = pathlib.Path(path).read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS, (int(fields[13]) + int(fields[14])) / TICKS


def difference(before, after):
    return {kind: round(after[kind] - before[kind], 2) for kind in sorted(after)}


def latencies(post, bodies):
    times = sorted(post(body) for body in bodies)
    return {"n": len(times), "p50_ms": round(times[len(times) // 2], 1), "p99_ms": round(times[int(len(times) * 0.99)], 1)}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=pathlib.Path)
    arguments.add_argument("--files", type=int, default=100)
    arguments.add_argument("--largest", type=int, default=400_000, help="bytes")
    arguments.add_argument("--home", type=pathlib.Path, help="kept afterwards; its data are removed before")
    options = arguments.parse_args()
    files = sorted(path for path in options.folder.rglob("*") if path.is_file() and 0 < path.stat().st_size <= options.largest)
    files = random.Random(7).sample(files, min(options.files, len(files)))
    home = options.home or pathlib.Path(tempfile.mkdtemp(prefix="docmill-measure-"))
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o755)  # started by root, the services run as another user
    stack = Stack(pathlib.Path(__file__).resolve().parents[3] / "target/release/docmill", home)
    stack.run("down")
    shutil.rmtree(home / "data", ignore_errors=True)
    subprocess.run([stack.binary, "setup"], env=stack.environment, check=True, stdout=subprocess.DEVNULL)
    report = {}
    try:
        started = time.monotonic()
        stack.run("up")
        report["first_start_secs"] = round(time.monotonic() - started, 1)
        time.sleep(10)
        report["idle_memory_mb"], before = stack.memory(), stack.cpu()
        time.sleep(30)
        report["idle_cpu_percent"] = round(sum(difference(before, stack.cpu()).values()) / 30 * 100, 1)

        before, started = stack.cpu(), time.monotonic()
        subprocess.run([stack.binary, "upload", *map(str, files), "--wait", "--json"], env=stack.environment,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.monotonic() - started
        spent = difference(before, stack.cpu())
        outside = sum(value for kind, value in spent.items() if kind not in ("embedding", "parsing"))
        documents = stack.run("docs", "--limit", "200")["documents"]
        report["work"] = {
            "documents": len(files), "seconds": round(seconds, 1), "documents_per_second": round(len(files) / seconds, 2),
            "states": collections.Counter(document["state"] for document in documents),
            "codes": collections.Counter(document["code"] for document in documents if document["code"]),
            "cpu_secs": spent, "cpu_share_outside": round(outside / sum(spent.values()), 3)}
        report["memory_after_mb"] = stack.memory()

        status = stack.run("status")
        key = pathlib.Path(status["key_file"]).read_text().strip()

        def post(path):
            def send(body):
                request = urllib.request.Request(status["url"] + path, json.dumps(body).encode(),
                                                 {"Authorization": "Bearer " + key, "Content-Type": "application/json"})
                started = time.monotonic()
                urllib.request.urlopen(request).read()
                return (time.monotonic() - started) * 1000
            return send

        phrases = [f"{subject} {word}".strip() for subject in SUBJECTS for word in WORDS]
        searches = [{"query": phrase} for phrase in phrases]
        questions = [{"question": f"What is said about {phrase}?"} for phrase in phrases]
        report["search_first"], report["search"] = (latencies(post("/v1/search"), searches) for _ in range(2))
        report["answer_first"], report["answer"] = (latencies(post("/v1/answers"), questions) for _ in range(2))
    finally:
        stack.run("down")
        if options.home is None:
            shutil.rmtree(home, ignore_errors=True)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
