"""Data sets in BEIR layout, measures as in trec_eval, and the vectors that Docmill's evaluations keep."""

import argparse
import hashlib
import json
import math
import pathlib

import numpy as np


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def arguments():
    """What each program over one data set takes: the model, the set, its split, and a folder of vectors that are kept."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("beir")
    parser.add_argument("--split")
    parser.add_argument("--vectors")
    return parser


class Folder:
    """Entries, judged questions and judgements of one split."""

    def __init__(self, path, split=None):
        path = pathlib.Path(path)
        found = sorted((path / "qrels").glob("*.tsv"))
        chosen = [file for file in found if file.stem == (split or "test")] or found[:1]
        self.name, self.split = path.name, chosen[0].stem
        self.judgements = {}
        for number, line in enumerate(chosen[0].read_text().splitlines()):
            columns = line.split()
            if not columns or (number == 0 and not columns[-1].lstrip("-").isdigit()):
                continue
            self.judgements.setdefault(columns[0], {})[columns[-2]] = max(int(columns[-1]), 0)
        self.judgements = {question: grades for question, grades in self.judgements.items() if any(grades.values())}
        self.entries = lines(path / "corpus.jsonl")
        self.questions = [line for line in lines(path / "queries.jsonl") if line["_id"] in self.judgements]

    def texts(self):
        """What is embedded: the title, a line break, the text."""
        whole = [(entry.get("title", "").strip(), entry["text"]) for entry in self.entries]
        return [f"{title}\n{text}" if title else text for title, text in whole]


def ndcg(ranking, grades, k=10):
    gained = sum(grades.get(entry, 0) / math.log2(rank + 2) for rank, entry in enumerate(ranking[:k]))
    ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:k]
    best = sum(grade / math.log2(rank + 2) for rank, grade in enumerate(ideal))
    return gained / best if best else 0.0


def recall(ranking, grades, k):
    relevant = {entry for entry, grade in grades.items() if grade > 0}
    return len(relevant.intersection(ranking[:k])) / len(relevant)


def reciprocal_rank(ranking, grades, k=10):
    relevant = {entry for entry, grade in grades.items() if grade > 0}
    return next((1 / (rank + 1) for rank, entry in enumerate(ranking[:k]) if entry in relevant), 0.0)


def means(folder, rankings):
    """The means over all questions, by measure."""
    of = lambda question: (rankings.get(question["_id"], []), folder.judgements[question["_id"]])
    mean = lambda measure: float(np.mean([measure(*of(question)) for question in folder.questions]))
    return {
        "ndcg@10": mean(ndcg),
        "recall@10": mean(lambda ranking, grades: recall(ranking, grades, 10)),
        "recall@100": mean(lambda ranking, grades: recall(ranking, grades, 100)),
        "mrr@10": mean(reciprocal_rank),
    }


def judge(folder, rankings):
    """nDCG@10 by question, in the order of the questions, and a line of means."""
    of = lambda question: (rankings.get(question["_id"], []), folder.judgements[question["_id"]])
    ndcgs, all_means = [ndcg(*of(question)) for question in folder.questions], means(folder, rankings)
    return ndcgs, "  ".join(f"{name.replace('ndcg', 'nDCG').replace('mrr', 'MRR')} {value:.4f}" for name, value in all_means.items())


def read_run(path):
    """Rankings of a TREC run file."""
    rankings = {}
    for line in pathlib.Path(path).read_text().splitlines():
        question, _, entry, rank, _, _ = line.split()
        rankings.setdefault(question, []).append((int(rank), entry))
    return {question: [entry for _, entry in sorted(ranked)] for question, ranked in rankings.items()}


def paired_bootstrap(first, second, draws=10_000, seed=7):
    """Mean difference, its 95 % interval, and the one-sided p-value."""
    differences = np.array(second) - np.array(first)
    generator = np.random.default_rng(seed)
    means = differences[generator.integers(0, len(differences), (draws, len(differences)))].mean(axis=1)
    mean = differences.mean()
    against = (means <= 0).mean() if mean >= 0 else (means >= 0).mean()
    return mean, *np.quantile(means, [0.025, 0.975]), against


def cross_validated(table, folds=5):
    """Of `table`, ways × questions, each fold of the questions by the way that is best on the others; and the way of each fold."""
    table = np.array(table)
    fold, validated, chosen = np.arange(table.shape[1]) % folds, np.zeros(table.shape[1]), []
    for number in range(folds):
        chosen.append(int(table[:, fold != number].mean(1).argmax()))
        validated[fold == number] = table[chosen[-1], fold == number]
    return validated, chosen


def kept_vectors(folder):
    """Vectors by SHA-256 of the text, from the files that `docmill eval` and the benchmark keep."""
    vectors = {}
    for path in sorted(pathlib.Path(folder).glob("vectors-*.bin")):
        raw = np.fromfile(path, dtype=np.uint8)
        records = raw[: len(raw) // 1568 * 1568].reshape(-1, 1568)
        values = records[:, 32:].copy().view("<f4")
        vectors.update({records[row, :32].tobytes(): values[row] for row in range(len(records))})
    return vectors


def embedded(texts, model, kept):
    """Vectors of `texts`: the kept ones, the rest from the model."""
    keys = [hashlib.sha256(text.encode()).digest() for text in texts]
    missing = [place for place, key in enumerate(keys) if key not in kept]
    if missing:
        for place, vector in zip(missing, model.embed([texts[place] for place in missing])):
            kept[keys[place]] = vector
    return np.stack([kept[key] for key in keys])


