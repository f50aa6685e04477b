"""Starts the readers that are compared: Docmill by its `corpus` example, the others by peers.py in an environment of their own."""

import hashlib
import json
import os
import pathlib
import resource
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
WORKSPACE = HERE.parents[2]
WORK = WORKSPACE / "target/bench-documents"
PYTHON = WORK / "venv/bin/python"


def environment():
    """Makes this script run in a virtual environment with the pinned peers; does not return when it had to start anew."""
    WORK.mkdir(parents=True, exist_ok=True)
    stamp = WORK / "venv" / ("pinned-" + hashlib.sha256((HERE / "requirements.txt").read_bytes()).hexdigest()[:16])
    if not stamp.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", WORK / "venv"], check=True)
        pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--no-deps"]
        subprocess.run([*pip, "-r", HERE / "requirements.txt"], check=True)
        stamp.touch()
    if pathlib.Path(sys.prefix).resolve() != (WORK / "venv").resolve():
        os.execv(PYTHON, [str(PYTHON), *sys.argv])


def build():
    """Builds Docmill's side, with the features of the whole workspace, so that no dependency is built once more."""
    command = ["cargo", "build", "--release", "--workspace", "--example", "corpus"]
    subprocess.run(command, check=True, cwd=WORKSPACE)


def pdfium_library():
    """The library of the pinned wheel: the same build that Docmill pins, so that both read with the same engine."""
    import pypdfium2_raw

    return pathlib.Path(pypdfium2_raw.__file__).parent / "libpdfium.so"


def docmill(paths, slots=2, rows=True):
    """Reads files through the sandbox: rows by path, processor seconds of all processes, wall seconds."""
    listed, out = _list(paths), WORK / "docmill.jsonl"
    command = [WORKSPACE / "target/release/examples/corpus", listed, "--slots", str(slots)]
    command += ["--rows", out] if rows else ["--unchecked"]
    started, before = time.monotonic(), _children_secs()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "DOCMILL_PDFIUM": str(pdfium_library())})
    wall, cpu = time.monotonic() - started, _children_secs() - before
    found = {}
    for line in out.read_text(encoding="utf-8").splitlines() if rows else []:
        row = json.loads(line)
        found[row["path"]] = {**row["report"], "content": row["content"], "tables": row["tables"]}
    return found, cpu, wall


def peer(reader, paths):
    """Reads files with another reader: rows by path, processor seconds, wall seconds, both of the reading alone."""
    out = WORK / f"{reader}.jsonl"
    subprocess.run([PYTHON, HERE / "peers.py", reader, _list(paths), out], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    *rows, total = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return {row["path"]: row for row in rows}, total["cpu_secs"], total["wall_secs"]


def _list(paths):
    path = WORK / "list.txt"
    path.write_text("\n".join(map(str, paths)) + "\n", encoding="utf-8")
    return path


def _children_secs():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
