"""Does late interaction help? The best candidates of a convex fusion read again token by token, on a BEIR folder.

    python late.py MODEL_DIR BEIR_DIR [--split train] [--vectors DIR]

The candidates are those of bm25s and MiniLM, fused as Docmill does (.35 of BM25 over the best one's, .65 of the cosine). Each
of the first 20 or 30 gets, times a weight, the mean over the question's tokens of the best cosine with a token of the passage
(MaxSim of ColBERT, with the tokens of all-MiniLM-L6-v2, which was not trained for it). Weights are judged by five folds.
"""

import time

import bm25s
import numpy as np
import Stemmer

import beir
from baseline import LANGUAGES
from minilm import MiniLM

DEPTHS = (20, 30)
WEIGHTS = (0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5)


def token_vectors(model, texts, batch=16):
    """Unit vectors of the tokens of each text, without the marks around it; half precision."""
    vectors = [None] * len(texts)
    for places, lengths, _, hidden in model.hidden(texts, batch):
        for row, place in enumerate(places):
            states = hidden[row, 1 : lengths[row] - 1]
            vectors[place] = (states / np.linalg.norm(states, axis=1, keepdims=True)).astype(np.float16)
    return vectors


def candidates(folder, model, kept):
    """For each question the 100 best entries with their fused scores."""
    language = LANGUAGES.get(folder.name, "english")
    stemmer, stop = Stemmer.Stemmer(language), "en" if language == "english" else None
    texts, asked = folder.texts(), [question["text"] for question in folder.questions]
    tokens = lambda texts: bm25s.tokenize(texts, stopwords=stop, stemmer=stemmer, show_progress=False)
    index = bm25s.BM25()
    index.index(tokens(texts), show_progress=False)
    places, scores = index.retrieve(tokens(asked), k=min(100, len(texts)), show_progress=False)
    cosines = model.embed(asked) @ beir.embedded(texts, model, kept).T
    for row, words, cosine in zip(places, scores, cosines):
        best = max(float(words[0]), 1e-9)
        found = {int(place): 0.35 * float(score) / best for place, score in zip(row, words)}
        found.update({int(place): found.get(int(place), 0.0) for place in np.argsort(-cosine)[:100]})
        fused = {place: score + 0.65 * max(float(cosine[place]), 0.0) for place, score in found.items()}
        yield sorted(fused.items(), key=lambda item: -item[1])[:100]


def main():
    options = beir.arguments().parse_args()
    folder, model = beir.Folder(options.beir, options.split), MiniLM(options.model, threads=2)
    kept = beir.kept_vectors(options.vectors) if options.vectors else {}
    found = list(candidates(folder, model, kept))
    needed = sorted({place for row in found for place, _ in row[: max(DEPTHS)]})
    texts, started = folder.texts(), time.perf_counter()
    passages = dict(zip(needed, token_vectors(model, [texts[place] for place in needed])))
    print(f"{len(needed)} passages read in {time.perf_counter() - started:.0f} s")
    questions = token_vectors(model, [question["text"] for question in folder.questions])
    product = lambda question, place: question @ passages[place].astype(np.float32).T
    late = [
        [float(product(question.astype(np.float32), place).max(1).mean()) for place, _ in row[: max(DEPTHS)]]
        for question, row in zip(questions, found)
    ]

    def judge(weight, depth):
        rankings = {}
        for question, row, second in zip(folder.questions, found, late):
            read = [(score + weight * again, place) for (place, score), again in zip(row[:depth], second)]
            places = [place for _, place in sorted(read, key=lambda item: -item[0])] + [place for place, _ in row[depth:]]
            rankings[question["_id"]] = [folder.entries[place]["_id"] for place in places]
        return beir.judge(folder, rankings)

    before, line = judge(0, 0)
    print(f"fused       {line}")
    ways = [(depth, weight) for depth in DEPTHS for weight in WEIGHTS]
    table = []
    for depth, weight in ways:
        scores, line = judge(weight, depth)
        table.append(scores)
        print(f"{depth:3} {weight:7} {line}")
    validated, chosen = beir.cross_validated(table)
    for number, best in enumerate(chosen):
        print(f"fold {number} chooses {ways[best]}")
    difference, low, high, p = beir.paired_bootstrap(before, validated)
    print(f"cross-validated nDCG@10 {validated.mean():.4f}, against fused {difference:+.4f} ({low:+.4f} … {high:+.4f}), p {p:.3f}")


if __name__ == "__main__":
    main()
