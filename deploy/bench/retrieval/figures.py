"""All figures of retrieval quality in one table: Docmill's three modes beside peers on the same data.

    python figures.py --docmill BIN --model MODEL_DIR --data CORPORA [--only NAME …] [--results FILE …] [--out FILE] [--vectors DIR]

Runs `docmill eval run figures.yaml` on the services of DOCMILL_HOME, suite by suite, then the peers: bm25s (Snowball stemmer;
character bigrams for Chinese), all-MiniLM-L6-v2 with exact cosine, and both by reciprocal ranks. `--results` takes files of an
earlier run instead of judging their suites again; `--out` keeps this one. Differences are with 95 % of a paired bootstrap.
Ends with code 1 when a figure is below its mark.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import beir
import windows
from baseline import dense, lexical, reciprocal
from minilm import MiniLM

HERE = pathlib.Path(__file__).parent
MODES = ("lexical", "dense", "hybrid")
PEERS = {"lexical": "bm25s", "dense": "MiniLM, exact", "hybrid": "RRF of both"}
MEASURES = ("ndcg@10", "recall@10", "recall@100", "mrr@10")
SPLITS = {"scifact": "train"}
FOLDERS = {f"xquad-{language}": f"xquad/{language}" for language in ("en", "de", "ru", "zh", "ar")}
# What has to be reached: least figure by set and measure of a mode.
MARKS = {
    ("xquad-en", "hybrid.ndcg@10"): 0.97,
    ("xquad-de", "hybrid.ndcg@10"): 0.92,
    ("xquad-ru", "hybrid.ndcg@10"): 0.89,
    ("xquad-zh", "hybrid.ndcg@10"): 0.965,
    ("xquad-ar", "hybrid.ndcg@10"): 0.92,
    ("anthropic-docs", "hybrid.recall@10"): 0.90,
}
# Hybrid has to be this much above reciprocal ranks of the peers, lexical not below bm25s, on SciFact.
GAIN = 0.01


def judged(options, name):
    """The outcome of one suite, as `docmill eval` writes it."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out.json"
        command = [options.docmill, "eval", "run", str(HERE / "figures.yaml"), "--data", options.data, "--only", name, "--out", str(out)]
        print(f"docmill: {name}", file=sys.stderr, flush=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        suites = json.loads(out.read_text())["suites"]
    return next(suite for suite in suites if suite["suite"] == name)


def suites(options):
    """Outcomes by name: those of earlier results, the others judged now."""
    names = [line.split("name: ")[1].split(",")[0] for line in (HERE / "figures.yaml").read_text().splitlines() if "kind:" in line]
    names = [name for name in names if not options.only or any(part in name for part in options.only)]
    known = {}
    for path in options.results:
        known.update({suite["suite"]: suite for suite in json.loads(pathlib.Path(path).read_text())["suites"]})
    found = {}
    for name in names:
        found[name] = known[name] if name in known else judged(options, name)
        if options.out:
            pathlib.Path(options.out).write_text(json.dumps({"suites": list(found.values())}))
    return found


def peers(options, name, model, kept):
    """nDCG@10 by question and the means of each peer, by mode."""
    folder = beir.Folder(pathlib.Path(options.data) / FOLDERS.get(name, name), SPLITS.get(name))
    ids = [question["_id"] for question in folder.questions]
    words, meaning = lexical(folder), dense(folder, model, kept)
    rankings = {"lexical": words, "dense": meaning, "hybrid": reciprocal(words, meaning)}
    figures = {}
    for mode, rows in rankings.items():
        by_question = dict(zip(ids, rows))
        scores, _ = beir.judge(folder, by_question)
        figures[mode] = (dict(zip(ids, scores)), beir.means(folder, by_question))
    return figures


def shown(value):
    return f"{value:.4f}".replace("0.", ".", 1) if value is not None else ""


def rows(name, suite, other, missed):
    """Lines of the table for one set."""
    measures = {measure["name"]: measure for measure in suite["measures"]}
    for mode in MODES:
        scores, means = other[mode]
        own = measures[f"{mode}.ndcg@10"]["cases"]
        ids = sorted(own.keys() & scores.keys())
        if len(ids) != len(scores):
            sys.exit(f"{name}: Docmill judged other questions than the peers")
        difference, low, high, _ = beir.paired_bootstrap([scores[i] for i in ids], [own[i] for i in ids])
        figures = [shown(measures[f"{mode}.{measure}"]["value"]) for measure in MEASURES]
        yield f"| {name} | {mode} | Docmill | {' | '.join(figures)} | {difference:+.4f} ({low:+.4f} … {high:+.4f}) |"
        yield f"| | | {PEERS[mode]} | {' | '.join(shown(means[measure]) for measure in MEASURES)} | |"
        if name == "scifact" and mode != "dense" and difference < (GAIN if mode == "hybrid" else 0.0):
            missed.append(f"{name} {mode}: {difference:+.4f} to {PEERS[mode]}")
    for (of, measure), mark in MARKS.items():
        if of == name and measures[measure]["value"] < mark:
            missed.append(f"{name} {measure}: {shown(measures[measure]['value'])}, not {mark}")
    if measures["hybrid.ndcg@10"]["value"] < measures["lexical.ndcg@10"]["value"]:
        missed.append(f"{name}: hybrid is below lexical")


def chunking(name, suite, excerpts, missed):
    """Lines of the table of chunks, alone and each with its neighbours, beside windows of fixed size, found by the same search
    and, of words, by bm25s. A mark is missed when chunks reach it in neither way."""
    figures = {measure["name"]: measure["value"] for measure in suite["measures"]}
    budgets = sorted({int(key.split("@")[1]) for key in figures})
    for budget in budgets:
        label = f"fixed-{budget // windows.WINDOWS}"
        own, around = ([figures[f"{way}.{measure}@{budget}"] for measure in ("recall", "iou")] for way in ("docmill", "docmill+1"))
        fixed = [figures[f"{label}.{measure}@{budget}"] for measure in ("recall", "iou")]
        peer = windows.judge(excerpts, budget // windows.WINDOWS) if name.endswith("lexical") else (None, None)
        cells = [value for measure in zip(own, around, fixed, peer) for value in measure]
        yield f"| {name.removeprefix('chunking-')} | {budget} | {' | '.join(map(shown, cells))} |"
        for way, theirs in (("windows", fixed), ("windows by bm25s", peer)):
            beats = lambda mine: all(other is None or value > other for value, other in zip(mine, theirs))
            if not beats(own) and not beats(around):
                said = [" and ".join(map(shown, figures)) for figures in (own, around, theirs)]
                missed.append(f"{name} at {budget}: recall and IoU {said[0]}, with neighbours {said[1]}, {way} {said[2]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docmill", default="docmill")
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--results", action="append", default=[])
    parser.add_argument("--out")
    parser.add_argument("--vectors")
    options = parser.parse_args()
    outcomes, missed = suites(options), []
    model = MiniLM(options.model, threads=2)
    kept = beir.kept_vectors(options.vectors) if options.vectors else {}
    print("| set | mode | system | nDCG@10 | recall@10 | recall@100 | MRR@10 | nDCG@10 to the peer (95 %) |")
    print("|---|---|---|---|---|---|---|---|")
    for name, suite in outcomes.items():
        if suite["kind"] == "retrieval":
            for line in rows(name, suite, peers(options, name, model, kept), missed):
                print(line, flush=True)
    excerpts = None
    if any(suite["kind"] == "chunking" for suite in outcomes.values()):
        excerpts = windows.Excerpts(pathlib.Path(options.data) / "chunking-eval")
        print(f"\nchunking-eval: {len(excerpts.texts)} texts, {len(excerpts.questions)} questions\n")
        print("| mode | characters | recall | with neighbours | windows | windows, bm25s | IoU | with neighbours | windows | windows, bm25s |")
        print("|---|---|---|---|---|---|---|---|---|---|")
    for name, suite in outcomes.items():
        if suite["kind"] == "chunking":
            for line in chunking(name, suite, excerpts, missed):
                print(line)
    print("".join(f"\nbelow its mark: {what}" for what in missed) or "\nevery mark is reached")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
