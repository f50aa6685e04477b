"""Hostile files among honest ones: is each of them set aside with its cause, and do the others wait for them?

    python3 deploy/bench/stack/poison.py [--documents 500] [--hostile 50] [--rate 4] [--binary FILE] [--home DIR] [--json]

Uploads the honest documents alone, then the same number again with hostile files in between, both at one pace, and compares how long
the honest ones took from `complete` to their end. Uses target/release/docmill (or --binary), a DOCMILL_HOME of its own, and nothing
outside Python's standard library. Ends with 1 when a limit is missed. README.md beside this file says what is measured and how.
"""
import argparse
import datetime
import functools
import io
import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
import zlib

from burst import SETTLED, Client, text
from measure import Stack

LATENCY_LIMIT, ATTEMPTS_LIMIT = 1.2, 3
UPLOADERS = 4
GRACE = 600


@functools.cache
def packed_page():
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(b"(x) Tj " * 150_000) for _ in range(1024)) + packer.flush()


def bomb_pdf(number):
    """Its page unpacks to 1 GiB."""
    stream = packed_page()
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
               b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 %d 9]/Contents 4 0 R>>" % number,
               b"<</Length %d/Filter/FlateDecode>>stream\n" % len(stream) + stream + b"\nendstream"]
    body, places = b"%PDF-1.4\n", []
    for place, each in enumerate(objects, 1):
        places.append(len(body))
        body += b"%d 0 obj" % place + each + b"endobj\n"
    table = b"xref\n0 5\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    return body + table + b"trailer<</Size 5/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(body)


@functools.cache
def packed_docx():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        with archive.open("word/document.xml", "w", force_zip64=True) as part:
            part.write(b"<w:document>")
            for _ in range(1024):
                part.write(b" " * (1 << 20))
    return packed.getvalue()


def bomb_docx(number):
    """Its text unpacks to 1 GiB."""
    packed = io.BytesIO(packed_docx())
    with zipfile.ZipFile(packed, "a") as archive:
        archive.comment = b"%d" % number
    return packed.getvalue()


def huge_png(number):
    """It claims 60,000 by 60,000 pixels."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", 60_000, 60_000 - number, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


def torn_pdf(number):
    return b"%PDF-1.7\n1 0 obj <</Type /Catalog /Pages " + b"%d 0 R>>" % number + b"[" * 100_000


KINDS = [("application/pdf", "pdf", torn_pdf), ("application/pdf", "pdf", bomb_pdf), ("image/png", "png", huge_png),
         ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "docx", bomb_docx)]


def run(status, key, collection, slots, rate):
    """Uploads what the slots hold, each at its time; the ids by slot, once all have settled."""
    ids, begin = {}, time.monotonic() + 0.5

    def work(lane):
        client = Client(status["url"], key)
        for place in range(lane, len(slots), UPLOADERS):
            if slots[place]:
                time.sleep(max(0.0, begin + place / rate - time.monotonic()))
                name, kind, content = slots[place]
                ids[place], _ = client.upload(name, content, collection, kind)

    lanes = [threading.Thread(target=work, args=(lane,)) for lane in range(UPLOADERS)]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    client, deadline = Client(status["url"], key), time.monotonic() + GRACE
    for document in ids.values():
        while client.ask("GET", f"/v1/documents/{document}")["state"] not in SETTLED:
            if time.monotonic() > deadline:
                raise SystemExit("documents do not settle")
            time.sleep(0.1)
    return ids


def latencies(client, documents):
    """Seconds from acceptance to the end of the run."""
    found = []
    for document in documents:
        events = client.ask("GET", f"/v1/documents/{document}/events?limit=200")["events"]
        at = {event["kind"]: datetime.datetime.fromisoformat(event["created_at"].replace("Z", "+00:00")) for event in events}
        found.append((at["run.settled"] - at["upload.accepted"]).total_seconds())
    return sorted(found)


def quantile(ordered, share):
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 3)


def set_aside(client, documents):
    """Of each hostile document how it ended: the code, the attempts of the job that was given up, and whether its upload is named."""
    found = []
    for document in documents:
        dead = client.ask("GET", f"/v1/operate/dead?document={document}")["jobs"]
        detail = client.ask("GET", f"/v1/operate/dead/{dead[0]['job_id']}") if dead else {}
        found.append({"code": dead[0]["code"] if dead else None, "attempts": len(detail.get("attempts", [])),
                      "has_cause": bool(dead and dead[0].get("failure")), "has_upload": bool((detail.get("upload") or {}).get("sha256"))})
    return found


def measure(stack, options):
    status = stack.run("up")
    key = pathlib.Path(status["key_file"]).read_text().strip()
    client = Client(status["url"], key)
    hostile = set(random.Random(1).sample(range(options.documents), options.hostile))

    def slots(name, with_hostile):
        made = []
        for place in range(options.documents):
            kind, ending, make = KINDS[place % len(KINDS)]
            if place not in hostile:
                made.append((f"{name}-{place}.txt", "text/plain", text(name, place)))
            else:
                made.append((f"{name}-{place}.{ending}", kind, make(place + 1)) if with_hostile else None)
        return made

    run(status, key, "warm", slots("warm", False)[:8], options.rate)
    alone = latencies(client, run(status, key, "alone", slots("alone", False), options.rate).values())
    ids = run(status, key, "beside", slots("beside", True), options.rate)
    beside = latencies(client, [ids[place] for place in ids if place not in hostile])
    parked = set_aside(client, [ids[place] for place in sorted(hostile)])
    codes = {}
    for one in parked:
        codes[one["code"]] = codes.get(one["code"], 0) + 1
    shown = [{"p50": quantile(times, .5), "p95": quantile(times, .95), "p99": quantile(times, .99)} for times in (alone, beside)]
    ratio = round(shown[1]["p95"] / shown[0]["p95"], 2)
    rows = [("hostile files set aside with code, cause and upload", sum(bool(one["code"]) and one["has_cause"] and one["has_upload"]
                                                                       for one in parked), options.hostile),
            ("most attempts of one of them", max(one["attempts"] for one in parked), ATTEMPTS_LIMIT),
            ("p95 of the honest ones, times alone", ratio, LATENCY_LIMIT)]
    holds = [rows[0][1] == rows[0][2], rows[1][1] <= rows[1][2], rows[2][1] <= rows[2][2]]
    return {"alone": shown[0], "beside": shown[1], "codes": codes, "cores": os.cpu_count(),
            "limits": [{"what": what, "figure": figure, "limit": limit, "holds": held}
                       for (what, figure, limit), held in zip(rows, holds)]}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--documents", type=int, default=500)
    arguments.add_argument("--hostile", type=int, default=50)
    arguments.add_argument("--rate", type=float, default=4, help="documents a second")
    arguments.add_argument("--binary", type=pathlib.Path,
                           default=pathlib.Path(__file__).resolve().parents[3] / "target/release/docmill")
    arguments.add_argument("--home", type=pathlib.Path, help="kept afterwards; its data are removed before")
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    if not 0 < options.hostile < options.documents or options.rate <= 0:
        arguments.error("--hostile must be above 0 and below --documents, --rate above 0")
    home = (options.home or pathlib.Path(tempfile.mkdtemp(prefix="docmill-poison-"))).resolve()
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o755)  # started by root, the services run as another user
    stack = Stack(options.binary, home, {"DOCMILL_EMBEDDING_PROVIDER": "hash"})
    stack.run("down")
    shutil.rmtree(home / "data", ignore_errors=True)
    subprocess.run([stack.binary, "setup"], env=stack.environment, check=True, stdout=subprocess.DEVNULL)
    try:
        report = measure(stack, options)
    finally:
        stack.run("down")
        if options.home is None:
            shutil.rmtree(home, ignore_errors=True)
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        for row in report["limits"]:
            print(f"{row['what']:52} {row['figure']:>8} {'limit ' + str(row['limit']):>12}  {'holds' if row['holds'] else 'MISSED'}")
        print(json.dumps({name: report[name] for name in ("alone", "beside", "codes", "cores")}))
    sys.exit(0 if all(row["holds"] for row in report["limits"]) else 1)


if __name__ == "__main__":
    main()
