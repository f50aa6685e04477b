"""What reranking by words that stand near each other is worth, judged on a BEIR folder beside exact peers.

    python near.py MODEL_DIR BEIR_DIR [--split train] [--vectors DIR] [--modes hybrid,lexical,dense]

The 20 best of bm25s and MiniLM, fused as Docmill fuses (.35 of BM25 over the best; of the cosine .65, or .03 in a language that the model
does not know), are put in the order of their fused score over the best one's plus, times a weight, the greatest share of the question's
idf whose words stand within a window of the passage. A stop word counts a tenth. Stems and stop words are those of tantivy, as in Docmill;
scripts with spaces only. Windows and weights are told for all questions, and cross-validated by five folds.
"""

import math
import re
import unicodedata

import bm25s
import numpy as np
import tantivy

import beir
from baseline import LANGUAGES
from minilm import MiniLM

WINDOWS = (8, 10, 12, 16, 24)
WEIGHTS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
SHIPPED = (10, 0.4)
DEPTH = 100
READ = 20
LEXICAL, DENSE, FOREIGN_DENSE = 0.35, 0.65, 0.03
KNOWN = {"english"}
STOP_WORD = 0.1

# crates/retrieval/src/lexical/analysis.rs: what tantivy's list for English lacks.
QUESTION_WORDS = set(
    "what which who whom whose when where why how much many do does did done has have had can could would should may might must shall were been"
    " being am from about than i you we he she its his her our your me".split()
)
LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "œ": "oe", "þ": "th", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "ı": "i"})


def fold(word):
    """Without accents."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", word) if not unicodedata.combining(letter)).translate(LETTERS)


def words(text):
    """Lower-case words: numbers whole and without their commas, other words split at what joins them, no possessive."""
    found = re.findall(r"\d+(?:[.,]\d+)+(?!\w)|[^\W_]+", re.sub(r"['’]s\b", "", text.lower()))
    return [word.replace(",", "")[:60] for word in found]


class Language:
    """Stems and stop words of one language, as the lexical index has them."""

    def __init__(self, name):
        through = lambda kind: tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).filter(kind).build()
        self.stemmer, self.name = through(tantivy.Filter.stemmer(name)), name
        # There is no list for Arabic.
        self.listed = None if name == "arabic" else through(tantivy.Filter.stopword(name))

    def stems(self, text):
        """The stems in their order."""
        return [fold(stem) for stem in self.stemmer.analyze(" ".join(words(text)))]

    def is_stop_word(self, word):
        listed = self.listed is not None and any(not self.listed.analyze(form) for form in (word, fold(word)))
        return listed or (self.name == "english" and word in QUESTION_WORDS)

    def question(self, text):
        """Each stem once, with what it weighs beside its idf; no word is a stop word when nothing else would be left."""
        stops = [self.is_stop_word(word) for word in words(text)]
        found = {}
        for stem, is_stop in zip(self.stems(text), stops):
            found.setdefault(stem, STOP_WORD if is_stop and not all(stops) else 1.0)
        return found


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
    return min(best / whole, 1.0) if whole else 0.0


class Fusion:
    """The candidates of all questions, by mode."""

    def __init__(self, folder, model, kept):
        language = Language(LANGUAGES.get(folder.name, "english"))
        asked, texts = [question["text"] for question in folder.questions], folder.texts()
        self.passages, self.questions = [language.stems(text) for text in texts], [language.question(text) for text in asked]
        self.dense = DENSE if language.name in KNOWN else FOREIGN_DENSE
        index = bm25s.BM25()
        index.index(self.passages, show_progress=False)
        told = [[stem for stem, weight in question.items() if weight == 1.0] for question in self.questions]
        self.places, self.scores = index.retrieve(told, k=min(DEPTH, len(texts)), show_progress=False)
        self.cosines = model.embed(asked) @ beir.embedded(texts, model, kept).T
        self.count = {}
        for passage in self.passages:
            for word in set(passage):
                self.count[word] = self.count.get(word, 0) + 1

    def weights(self, number):
        """What each word of a question tells."""
        idf = lambda word: math.log(1 + (len(self.passages) - self.count.get(word, 0) + 0.5) / (self.count.get(word, 0) + 0.5))
        return {word: weight * idf(word) for word, weight in self.questions[number].items()}

    def fused(self, number, mode):
        """Candidates with their fused scores, best first."""
        cosine, found = self.cosines[number], {}
        if mode != "dense":
            best = max(float(self.scores[number].max()), 1e-9)
            found = {int(place): LEXICAL * float(score) / best for place, score in zip(self.places[number], self.scores[number]) if score > 0}
        if mode != "lexical":
            found.update({int(place): found.get(int(place), 0.0) for place in np.argsort(-cosine)[:DEPTH]})
            found = {place: score + self.dense * max(float(cosine[place]), 0.0) for place, score in found.items()}
        return sorted(found.items(), key=lambda entry: -entry[1])


def measure(folder, fusion, mode):
    fused, near = [fusion.fused(number, mode) for number in range(len(folder.questions))], {window: [] for window in WINDOWS}
    for number, candidates in enumerate(fused):
        weights = fusion.weights(number)
        for window in WINDOWS:
            near[window].append([nearest(fusion.passages[place], weights, window) for place, _ in candidates[:READ]])

    def judge(window, weight):
        rankings = {}
        for question, candidates, shares in zip(folder.questions, fused, near[window]):
            best = max(candidates[0][1], 1e-9) if candidates else 1.0
            read = [(score / best + weight * share, place) for (place, score), share in zip(candidates, shares)]
            order = [place for _, place in sorted(read, key=lambda entry: -entry[0])] + [place for place, _ in candidates[READ:]]
            rankings[question["_id"]] = [folder.entries[place]["_id"] for place in order]
        return beir.judge(folder, rankings)

    before, line = judge(WINDOWS[0], 0.0)
    print(f"{folder.name} {mode}\nfused               {line}")
    ways = [(window, weight) for window in WINDOWS for weight in WEIGHTS]
    table = []
    for window, weight in ways:
        judged, line = judge(window, weight)
        table.append(judged)
        difference, low, high, _ = beir.paired_bootstrap(before, judged)
        shipped = "  shipped" if (window, weight) == SHIPPED else ""
        print(f"within {window:2} × {weight:<4}    {line}  {difference:+.4f} ({low:+.4f} … {high:+.4f}){shipped}", flush=True)
    validated, chosen = beir.cross_validated(table)
    chosen = ["{} × {}".format(*ways[best]) for best in chosen]
    difference, low, high, p = beir.paired_bootstrap(before, validated)
    print(f"cross-validated     nDCG@10 {validated.mean():.4f}, {difference:+.4f} ({low:+.4f} … {high:+.4f}), p {p:.3f}; folds chose {', '.join(chosen)}")


def main():
    parser = beir.arguments()
    parser.add_argument("--modes", default="hybrid,lexical,dense")
    options = parser.parse_args()
    folder = beir.Folder(options.beir, options.split)
    kept = beir.kept_vectors(options.vectors) if options.vectors else {}
    fusion = Fusion(folder, MiniLM(options.model, threads=1), kept)
    for mode in options.modes.split(","):
        measure(folder, fusion, mode)


if __name__ == "__main__":
    main()
