"""What reranking by words that stand near each other is worth, judged on a BEIR folder beside exact peers.

    python near.py MODEL_DIR BEIR_DIR [--split train] [--vectors DIR]

The 20 best of bm25s and MiniLM, fused as Docmill fuses (.35 of BM25 over the best, .65 of the cosine), are put in the order of their
fused score plus, times a weight, the greatest share of the question's idf whose words stand within a window of the passage. A stop word
counts a tenth. Windows and weights are told for all questions, and cross-validated by five folds.
"""

import math

import bm25s
import numpy as np
import Stemmer

import beir
from baseline import LANGUAGES
from minilm import MiniLM

WINDOWS = (8, 10, 12, 16, 24)
WEIGHTS = (0.05, 0.1, 0.2, 0.3, 0.5)
FOLDS = 5
DEPTH = 100
READ = 20


def sequences(texts, language, stop):
    """The stems of each text in their order."""
    stemmer = Stemmer.Stemmer(language)
    found = bm25s.tokenize(texts, stopwords=stop, stemmer=stemmer, token_pattern=r"(?u)\b\w+\b", return_ids=False, show_progress=False)
    return [list(row) for row in found]


def nearest(passage, weights, window):
    """The greatest share of the weight within a window."""
    met = [(place, word) for place, word in enumerate(passage) if word in weights]
    best, held, first, inside = 0.0, {}, 0, 0.0
    for place, word in met:
        held[word] = held.get(word, 0) + 1
        inside += weights[word] if held[word] == 1 else 0.0
        while met[first][0] + window <= place:
            gone = met[first][1]
            held[gone] -= 1
            inside -= weights[gone] if held[gone] == 0 else 0.0
            first += 1
        best = max(best, inside)
    whole = sum(weights.values())
    return best / whole if whole else 0.0


def main():
    options = beir.arguments().parse_args()
    folder = beir.Folder(options.beir, options.split)
    model = MiniLM(options.model, threads=1)
    kept = beir.kept_vectors(options.vectors) if options.vectors else {}
    language = LANGUAGES.get(folder.name, "english")
    stop = "en" if language == "english" else []
    asked_texts, texts = [question["text"] for question in folder.questions], folder.texts()
    told = sequences(asked_texts, language, stop)
    index = bm25s.BM25()
    index.index(sequences(texts, language, stop), show_progress=False)
    places, scores = index.retrieve(told, k=min(DEPTH, len(texts)), show_progress=False)
    cosines = model.embed(asked_texts) @ beir.embedded(texts, model, kept).T

    passages, count = sequences(texts, language, []), {}
    for passage in passages:
        for word in set(passage):
            count[word] = count.get(word, 0) + 1
    idf = lambda word: math.log(1 + (len(passages) - count.get(word, 0) + 0.5) / (count.get(word, 0) + 0.5))
    fused, near = [], {window: [] for window in WINDOWS}
    for number, words in enumerate(sequences(asked_texts, language, [])):
        best, cosine = max(float(scores[number].max()), 1e-9), cosines[number]
        found = {int(place): 0.35 * float(score) / best for place, score in zip(places[number], scores[number])}
        found.update({int(place): found.get(int(place), 0.0) for place in np.argsort(-cosine)[:DEPTH]})
        found = {place: score + 0.65 * max(float(cosine[place]), 0.0) for place, score in found.items()}
        fused.append(sorted(found.items(), key=lambda entry: -entry[1]))
        weights = {word: idf(word) * (1.0 if word in told[number] else 0.1) for word in set(words)}
        for window in WINDOWS:
            near[window].append([nearest(passages[place], weights, window) for place, _ in fused[number][:READ]])

    def judge(window, weight):
        rankings = {}
        for number, question in enumerate(folder.questions):
            read = [(score + weight * share, place) for (place, score), share in zip(fused[number], near[window][number])]
            order = [place for _, place in sorted(read, key=lambda entry: -entry[0])] + [place for place, _ in fused[number][READ:]]
            rankings[question["_id"]] = [folder.entries[place]["_id"] for place in order]
        return beir.judge(folder, rankings)

    before, line = judge(WINDOWS[0], 0.0)
    print(f"fused               {line}")
    table = []
    for window in WINDOWS:
        for weight in WEIGHTS:
            judged, line = judge(window, weight)
            table.append(judged)
            difference, low, high, _ = beir.paired_bootstrap(before, judged)
            print(f"within {window:2} × {weight:<4}    {line}  {difference:+.4f} ({low:+.4f} … {high:+.4f})", flush=True)
    table = np.array(table)
    fold, validated = np.arange(table.shape[1]) % FOLDS, np.zeros(table.shape[1])
    for number in range(FOLDS):
        best = table[:, fold != number].mean(1).argmax()
        validated[fold == number] = table[best, fold == number]
    difference, low, high, p = beir.paired_bootstrap(before, validated)
    print(f"cross-validated     nDCG@10 {validated.mean():.4f}, {difference:+.4f} ({low:+.4f} … {high:+.4f}), p {p:.3f}")


if __name__ == "__main__":
    main()
