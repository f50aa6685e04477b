"""Does it help that the words of a question stand near each other? Judged before it is built, on a BEIR folder.

    python proximity.py MODEL_DIR BEIR_DIR [--split train] [--vectors DIR]

To BM25 (bm25s with a Snowball stemmer, its 100 best) each pair of neighbouring words of the question adds, times a weight, the
smaller idf of the two times a saturating count of how often both stand within a window of the passage (the full dependence of
Metzler and Croft 2005, and the pairs of Rasolofo and Savoy 2003, in one form). A window of 1 is the pair as a phrase, in order. Both
are told for BM25 alone and for the convex fusion that Docmill ships (.35 and .65 of the cosine). Weights are judged by five folds.
"""

import math

import bm25s
import numpy as np
import Stemmer

import beir
from baseline import LANGUAGES
from minilm import MiniLM

WINDOWS = (1, 4, 8)
WEIGHTS = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
FOLDS = 5
DEPTH = 100


def sequences(texts, language):
    """The stems of each text in their order, stop words left out."""
    stop = "en" if language == "english" else None
    found = bm25s.tokenize(texts, stopwords=stop, stemmer=Stemmer.Stemmer(language), return_ids=False, show_progress=False)
    return [list(row) for row in found]


def together(first, second, window):
    """How often two words stand within `window` of each other; a window of 1 wants the second right behind the first."""
    if window == 1:
        behind = set(second)
        return sum(place + 1 in behind for place in first)
    return sum(any(0 < abs(place - other) <= window for other in second) for place in first)


def proximity(question, positions, idf, window):
    pairs = {(one, two) for one, two in zip(question, question[1:]) if one != two}
    total = 0.0
    for one, two in pairs:
        if one in positions and two in positions:
            count = together(positions[one], positions[two], window)
            total += min(idf[one], idf[two]) * count / (count + 1.0)
    return total


def main():
    options = beir.arguments().parse_args()
    folder = beir.Folder(options.beir, options.split)
    model = MiniLM(options.model, threads=1)
    kept = beir.kept_vectors(options.vectors) if options.vectors else {}
    language = LANGUAGES.get(folder.name, "english")
    passages = sequences([f"{entry.get('title', '')} {entry['text']}" for entry in folder.entries], language)
    asked_texts = [question["text"] for question in folder.questions]
    asked = sequences(asked_texts, language)
    index = bm25s.BM25()
    index.index(passages, show_progress=False)
    places, scores = index.retrieve(asked, k=min(DEPTH, len(passages)), show_progress=False)
    cosines = model.embed(asked_texts) @ beir.embedded(folder.texts(), model, kept).T

    count = {}
    for passage in passages:
        for word in set(passage):
            count[word] = count.get(word, 0) + 1
    idf = {word: math.log(1 + (len(passages) - n + 0.5) / (n + 0.5)) for word, n in count.items()}
    where = {}
    for place in {int(place) for row in places for place in row}:
        positions = {}
        for at, word in enumerate(passages[place]):
            positions.setdefault(word, []).append(at)
        where[place] = positions
    near = {
        window: [[proximity(question, where[int(place)], idf, window) for place in row] for question, row in zip(asked, places)]
        for window in WINDOWS
    }

    def judge(window, weight, is_fused):
        rankings = {}
        for number, question in enumerate(folder.questions):
            words = scores[number] + (weight * np.array(near[window][number]) if weight else 0.0)
            found = {int(place): float(score) for place, score in zip(places[number], words)}
            if is_fused:
                best, cosine = max(max(found.values()), 1e-9), cosines[number]
                found = {place: 0.35 * score / best for place, score in found.items()}
                found.update({int(place): found.get(int(place), 0.0) for place in np.argsort(-cosine)[:DEPTH]})
                found = {place: score + 0.65 * max(float(cosine[place]), 0.0) for place, score in found.items()}
            rankings[question["_id"]] = [folder.entries[place]["_id"] for place in sorted(found, key=lambda place: -found[place])]
        return beir.judge(folder, rankings)

    ways = [(window, weight) for window in WINDOWS for weight in WEIGHTS]
    for name, is_fused in (("BM25", False), ("fused", True)):
        before, line = judge(WINDOWS[0], 0, is_fused)
        print(f"{name:5} without           {line}")
        table = []
        for window, weight in ways:
            judged, line = judge(window, weight, is_fused)
            table.append(judged)
            print(f"{name:5} within {window} × {weight:<5} {line}", flush=True)
        table = np.array(table)
        fold, validated = np.arange(table.shape[1]) % FOLDS, np.zeros(table.shape[1])
        for number in range(FOLDS):
            best = table[:, fold != number].mean(1).argmax()
            validated[fold == number] = table[best, fold == number]
        difference, low, high, p = beir.paired_bootstrap(before, validated)
        print(f"{name:5} cross-validated nDCG@10 {validated.mean():.4f}, {difference:+.4f} ({low:+.4f} … {high:+.4f}), p {p:.3f}")


if __name__ == "__main__":
    main()
