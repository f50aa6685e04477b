"""How texts and tables are compared. Every reader's output goes through the same functions.

Tokens: NFKC, case folded, runs of letters and digits; each ideograph is a token of its own. What is compared are words, so
punctuation, Markdown marks and spacing cost nobody anything. A hyphen that a line end put into a word is undone on both sides.
"""

import collections
import re
import unicodedata

IDEOGRAPHS = "\u2e80-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
TOKEN = re.compile(rf"[{IDEOGRAPHS}]|(?:(?![{IDEOGRAPHS}_])[\w\u0300-\u036f])+")
BROKEN = re.compile("[\u00ad\u0002\ufffe]\\s*|(?<=\\w)-\r?\n(?=[a-z])")
INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")


def tokens(text):
    """The words of a text, in order."""
    text = unicodedata.normalize("NFKC", INVISIBLE.sub("", BROKEN.sub("", text))).casefold()
    return TOKEN.findall(text)


def markdown(text):
    """Markdown that a tool wrote as truth, without what no reader would print: comments, link targets, escapes, rules of tables."""
    text = re.sub(r"<!--.*?-->", " ", text, flags=re.S)
    text = re.sub(r"\]\([^)\s]*\)", "]", text)
    text = re.sub(r"^[|:\s-]+$", "", text, flags=re.M)
    text = re.sub(r"&(amp|lt|gt|quot|#39);", lambda m: {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "#39": "'"}[m[1]], text)
    return re.sub(r"\\([_*#\[\]()`~|.!+-])", r"\1", text)


def f1(found, truth):
    """F1 of two bags of tokens; two empty ones agree."""
    if not found and not truth:
        return 1.0
    common = sum((collections.Counter(found) & collections.Counter(truth)).values())
    return 2 * common / (len(found) + len(truth))


def order(found, truth):
    """In-order similarity: twice the longest common subsequence over both lengths."""
    if not found and not truth:
        return 1.0
    return 2 * _common(found, truth) / (len(found) + len(truth))


def _common(left, right):
    """Length of the longest common subsequence, a bit of one large number per token of `left` (Hyyrö 2004)."""
    places = collections.defaultdict(int)
    for index, token in enumerate(left):
        places[token] |= 1 << index
    whole = open_places = (1 << len(left)) - 1
    for token in right:
        matched = open_places & places.get(token, 0)
        open_places = ((open_places + matched) | (open_places - matched)) & whole
    return len(left) - open_places.bit_count()


def markdown_tables(text):
    """The tables of a Markdown text, as lists of rows of cell texts."""
    tables, rows = [], []
    for line in text.splitlines() + [""]:
        line = line.strip()
        if line.startswith("|") and line.endswith("|") and len(line) > 1:
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line[1:-1])]
            if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
                rows.append(cells)
        elif rows:
            tables.append(rows)
            rows = []
    return tables


def cells(tables):
    """Filled cells as a bag of (row, column, words). Rows and columns are counted within their table."""
    bag = collections.Counter()
    for table in tables:
        for row, columns in enumerate(table):
            for column, text in enumerate(columns):
                words = " ".join(tokens(markdown(text)))
                if words:
                    bag[(row, column, words)] += 1
    return bag


def cells_f1(found, truth):
    """F1 of filled cells that agree in row, column and words."""
    found, truth = cells(found), cells(truth)
    total = sum(found.values()) + sum(truth.values())
    return 2 * sum((found & truth).values()) / total if total else 1.0


def shingles(found, truth):
    """Shares of common, wrong and missed 4-grams of words, as the article benchmark's own script counts them."""
    bags = [collections.Counter(_grams(re.findall(r"\w+", text or ""))) for text in (found, truth)]
    common = sum((bags[0] & bags[1]).values())
    parts = [common, sum(bags[0].values()) - common, sum(bags[1].values()) - common]
    return [part / (sum(parts) or 1) for part in parts]


def _grams(words):
    return [tuple(words[i:i + 4]) for i in range(max(1, len(words) - 3)) if words]
