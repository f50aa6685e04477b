"""bm25s + MiniLM by reciprocal ranks, the peer that Docmill's hybrid search is compared with, on the same data.

    python baseline.py MODEL_DIR BEIR_DIR [--split train] [--vectors DIR] [--run LABEL=FILE.trec …]

Prints BM25 (bm25s at its defaults with a Snowball stemmer; character bigrams for Chinese), dense and RRF (k = 60, 100 candidates each), then every given
run file with its difference to RRF and to BM25.
"""


import bm25s
import numpy as np
import Stemmer

import beir
from minilm import MiniLM

DEPTH = 100
LANGUAGES = {"en": "english", "de": "german", "ru": "russian", "ar": "arabic"}


def bigrams(text):
    """Characters two by two, for scripts without spaces."""
    letters = [letter for letter in text.lower() if letter.isalnum()]
    return " ".join(first + second for first, second in zip(letters, letters[1:]))


def lexical(folder):
    language = LANGUAGES.get(folder.name, "english" if folder.name != "zh" else None)
    stemmer = Stemmer.Stemmer(language) if language else None
    texts = [f"{entry.get('title', '')} {entry['text']}" for entry in folder.entries]
    questions = [question["text"] for question in folder.questions]
    if language is None:
        texts, questions = [bigrams(text) for text in texts], [bigrams(text) for text in questions]
    stop = "en" if language == "english" else None
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, stopwords=stop, stemmer=stemmer, show_progress=False), show_progress=False)
    asked = bm25s.tokenize(questions, stopwords=stop, stemmer=stemmer, show_progress=False)
    found, _ = index.retrieve(asked, k=min(DEPTH, len(texts)), show_progress=False)
    return [[folder.entries[place]["_id"] for place in row] for row in found]


def dense(folder, model, kept):
    corpus = beir.embedded(folder.texts(), model, kept)
    asked = model.embed([question["text"] for question in folder.questions])
    near = np.argsort(-(asked @ corpus.T), axis=1, kind="stable")[:, :DEPTH]
    return [[folder.entries[place]["_id"] for place in row] for row in near]


def reciprocal(*rankings, k=60):
    fused = []
    for rows in zip(*rankings):
        scores = {}
        for row in rows:
            for rank, entry in enumerate(row):
                scores[entry] = scores.get(entry, 0.0) + 1.0 / (k + rank + 1)
        fused.append(sorted(scores, key=lambda entry: -scores[entry])[:DEPTH])
    return fused


def main():
    parser = beir.arguments()
    parser.add_argument("--run", action="append", default=[], metavar="LABEL=FILE")
    options = parser.parse_args()
    folder = beir.Folder(options.beir, options.split)
    model = MiniLM(options.model, threads=2)
    kept = beir.kept_vectors(options.vectors) if options.vectors else {}
    ids = [question["_id"] for question in folder.questions]
    words, meaning = lexical(folder), dense(folder, model, kept)
    print(f"{folder.name} ({folder.split}): {len(folder.entries)} entries, {len(ids)} questions")
    scores = {}
    for label, rows in (("bm25s", words), ("MiniLM", meaning), ("RRF", reciprocal(words, meaning))):
        scores[label], line = beir.judge(folder, dict(zip(ids, rows)))
        print(f"{label:16} {line}")
    for given in options.run:
        label, path = given.split("=", 1)
        own, line = beir.judge(folder, beir.read_run(path))
        print(f"{label:16} {line}")
        for peer in ("bm25s", "RRF"):
            difference, low, high, p = beir.paired_bootstrap(scores[peer], own)
            print(f"{'':16} against {peer:6} {difference:+.4f} ({low:+.4f} … {high:+.4f}), p {p:.3f}")


if __name__ == "__main__":
    main()
