"""chunking-eval without Docmill: windows of fixed size found by bm25s, judged as `docmill eval` judges chunks.

    python windows.py CHUNKING_EVAL

Prints recall and IoU by characters of the five best windows of 400, 800 and 1,600 characters: the figures that chunks of
any kind have to beat at a budget of 2,000, 4,000 and 8,000 retrieved characters.
"""

import csv
import json
import pathlib
import sys

import bm25s
import numpy as np
import Stemmer

WINDOWS = 5


class Excerpts:
    """Texts, and questions whose gold excerpts all stand where the set says."""

    def __init__(self, path):
        path = pathlib.Path(path)
        # Bytes, not read_text: offsets count line ends as they are.
        self.texts = {file.stem: file.read_bytes().decode() for file in sorted((path / "corpora").glob("*.md"))}
        self.questions = []
        with open(path / "questions-shared.csv", newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                excerpts = [(e["start_index"], e["end_index"], e["content"]) for e in json.loads(row["references"])]
                text = self.texts.get(row["corpus_id"])
                if text is not None and all(text[start:end] == content for start, end, content in excerpts):
                    self.questions.append((row["question"], row["corpus_id"], [(start, end) for start, end, _ in excerpts]))


def coverage(passages, name, excerpts):
    """Recall and IoU of retrieved (text, start, end) by characters."""
    own, wanted = set(), set()
    for text, start, end in passages:
        if text == name:
            own.update(range(start, end))
    for start, end in excerpts:
        wanted.update(range(start, end))
    elsewhere = sum(end - start for text, start, end in passages if text != name)
    covered = len(own & wanted)
    return covered / max(len(wanted), 1), covered / max(len(own) + elsewhere + len(wanted) - covered, 1)


def judge(excerpts, size):
    """Mean recall and IoU of the best windows of `size` characters."""
    passages = [(name, start, min(start + size, len(text))) for name, text in excerpts.texts.items() for start in range(0, len(text), size)]
    stemmer = Stemmer.Stemmer("english")
    tokens = lambda texts: bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)
    index = bm25s.BM25()
    index.index(tokens([excerpts.texts[name][start:end] for name, start, end in passages]), show_progress=False)
    found, _ = index.retrieve(tokens([question for question, _, _ in excerpts.questions]), k=WINDOWS, show_progress=False)
    scores = [coverage([passages[at] for at in row], name, gold) for row, (_, name, gold) in zip(found, excerpts.questions)]
    return tuple(np.mean(scores, axis=0))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    chosen = Excerpts(sys.argv[1])
    print(f"{len(chosen.texts)} texts, {len(chosen.questions)} questions\n\n| windows | recall | IoU |\n|---|---|---|")
    for window in (400, 800, 1600):
        recall, iou = judge(chosen, window)
        print(f"| {WINDOWS} of {window} | {recall:.4f} | {iou:.4f} |")
