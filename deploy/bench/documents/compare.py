"""Compares Docmill's reading with kreuzberg, pypdf, bare pdfium and plain tesseract on real files: one command, one table.

    python3 deploy/bench/documents/compare.py [--corpora DIR] [--only PART,...] [--json OUT]

Parts: reference, truth, articles, receipts, scans, hostile, all, speed. README.md beside this file explains each figure.
"""

import argparse
import collections
import functools
import json
import os
import pathlib
import platform
import statistics
import time

import readers
import score

ROUNDS = 3
READABLE = ("pdf", "html", "xhtml", "docx", "txt", "png", "jpg", "tif", "webp", "bmp")
OPENS = ("empty user password", "without a password", "not encrypted", "attachment only", "base of encryption")


class Corpora:
    """Where the files are, and what their manifest says."""

    def __init__(self, root):
        self.root = root
        lines = (root / "files/manifest.tsv").read_text(encoding="utf-8").splitlines()
        header = lines[0].split("\t")
        self.files = [dict(zip(header, line.split("\t"))) for line in lines[1:]]

    def path(self, row):
        return str(self.root / "files" / row["path"])

    def text(self, relative):
        return (self.root / "files" / relative).read_text(encoding="utf-8", errors="replace")


def reference(corpora):
    """Words of pdfium's own text, furniture included, over the files that pdfium opens without a password."""
    rows = [row for row in corpora.files if row["pdfium_reference_text"]]
    paths = [corpora.path(row) for row in rows]
    bare, _, _ = readers.peer("pdfium", paths)
    rows = [row for row in rows if bare[corpora.path(row)]["outcome"] == "ok"]
    shut = len(paths) - len(rows)
    paths = [corpora.path(row) for row in rows]
    truths = [score.tokens(corpora.text(row["pdfium_reference_text"])) for row in rows]
    table = {}
    for name, found in (("docmill", readers.docmill(paths)[0]), ("kreuzberg", readers.peer("kreuzberg_text", paths)[0]),
                        ("pypdf", readers.peer("pypdf", paths)[0]), ("bare pdfium", bare)):
        words = [score.tokens(found[path]["text"]) for path in paths]
        table[name] = {"word F1": mean(map(score.f1, words, truths)), "order": mean(map(score.order, words, truths))}
        if name == "docmill":
            worst = sorted(zip(map(score.f1, words, truths), (row["path"] for row in rows)))[:5]
    return {"title": f"PDF against pdfium's text, {len(rows)} files ({shut} need a password and are left out)", "table": table,
            "worst": worst}


def truth(corpora):
    """Words, order and table cells against texts that neither reader made."""
    sets = collections.defaultdict(list)
    for row in corpora.files:
        made_by_docling = row["path"].startswith("docling") and row["expected_text"].endswith(".md")
        if made_by_docling and row["format"] in ("pdf", "docx", "html", "md", "csv", "webp"):
            expected = corpora.text(row["expected_text"])
            sets[f"{row['format']} (docling)"].append((corpora.path(row), score.markdown(expected), score.markdown_tables(expected)))
        elif row["path"].startswith("tesseract") and row["expected_text"]:
            sets["tif (tesseract)"].append((corpora.path(row), corpora.text(row["expected_text"]), []))
    contracts = corpora.root / "kleister-nda/train"
    for path in sorted((contracts / "documents").glob("*.pdf")):
        text = contracts / "text" / (path.stem + ".txt")
        if text.exists():
            sets["pdf (kleister)"].append((str(path), text.read_text(encoding="utf-8", errors="replace"), []))
    paths = [path for files in sets.values() for path, _, _ in files]
    read = {"docmill": readers.docmill(paths)[0], "kreuzberg": readers.peer("kreuzberg", paths)[0]}
    table, files_of = {}, []
    for name, files in sorted(sets.items()):
        row = {"files": len(files)}
        for reader, found in read.items():
            # Docling and kreuzberg leave the headers and footers of a DOCX out; Docmill keeps them apart.
            shown = "content" if reader == "docmill" and name == "docx (docling)" else "text"
            words = [score.tokens(found[path].get(shown, "")) for path, _, _ in files]
            truths = [score.tokens(text) for _, text, _ in files]
            row[f"{reader} F1"], row[f"{reader} order"] = mean(map(score.f1, words, truths)), mean(map(score.order, words, truths))
            with_tables = [(found[path].get("tables", []), tables) for path, _, tables in files if tables]
            row[f"{reader} cells"] = mean(score.cells_f1(a, b) for a, b in with_tables) if with_tables else None
            files_of += [(reader, path.split("/files/")[-1], f1) for (path, _, _), f1 in zip(files, map(score.f1, words, truths))]
        table[name] = row
    return {"title": "Independent texts", "table": table, "files": files_of}


def articles(corpora):
    """The article of a news page: what is left when furniture is taken out."""
    folder = corpora.root / "article-extraction"
    paths = sorted(str(path) for path in (folder / "html").glob("*.html"))
    expected = [(folder / "expected" / (pathlib.Path(path).stem + ".txt")).read_text(encoding="utf-8") for path in paths]
    read = {"docmill": [row.get("content", "") for row in ordered(readers.docmill(paths)[0], paths)],
            "kreuzberg": [row["text"] for row in ordered(readers.peer("kreuzberg_text", paths)[0], paths)]}
    table = {}
    for reader, texts in read.items():
        common, wrong, missed = map(sum, zip(*map(score.shingles, texts, expected)))
        table[reader] = {"F1": 2 * common / (2 * common + wrong + missed), "precision": common / (common + wrong or 1),
                         "recall": common / (common + missed or 1)}
    return {"title": f"Article extraction, {len(paths)} pages", "table": table}


def receipts(corpora):
    """Photographed receipts against their transcripts."""
    folder = corpora.root / "sroie"
    paths = sorted(str(path) for path in (folder / "img").iterdir())
    truths = []
    for path in paths:
        lines = (folder / "box" / (pathlib.Path(path).stem + ".csv")).read_text(encoding="utf-8", errors="replace").splitlines()
        truths.append(score.tokens("\n".join(",".join(line.split(",")[8:]) for line in lines)))
    read = {"docmill": readers.docmill(paths)[0], "tesseract": readers.peer("tesseract", paths)[0],
            "kreuzberg": readers.peer("kreuzberg", paths)[0]}
    table = {}
    for reader, found in read.items():
        words = [score.tokens(row["text"]) for row in ordered(found, paths)]
        table[reader] = {"word F1": mean(map(score.f1, words, truths)), "order": mean(map(score.order, words, truths))}
    return {"title": f"Receipts, OCR, {len(paths)} images", "table": table}


def scans(corpora):
    """Old scanned forms: pages that give text."""
    paths = sorted(str(path) for path in (corpora.root / "vrdu-registration/pdfs").rglob("*.pdf"))
    found = readers.docmill(paths)[0]
    outcomes = collections.Counter(outcome for row in found.values() for outcome in row["page_outcomes"] or [row["outcome"]])
    pages = sum(outcomes.values())
    table = {"docmill": {"pages": pages, "with text": (outcomes["text"] + outcomes["ocr"]) / pages, **outcomes}}
    return {"title": f"Scanned forms, {len(paths)} files", "table": table}


def hostile(corpora):
    """Files made to harm: what became of each and how long it took."""
    paths = [corpora.path(row) for row in corpora.files if row["path"].startswith("_synthetic/hostile/")]
    found = readers.docmill(paths)[0]
    table = {pathlib.Path(path).name: {"outcome": row["outcome"], "seconds": row["millis"] / 1000, "MB": row["peak_rss_bytes"] >> 20}
             for path, row in sorted(found.items())}
    return {"title": f"Hostile files, {len(paths)}; longest {max(r['seconds'] for r in table.values()):.1f} s", "table": table}


def undamaged(row):
    """True for a file that its manifest says nothing bad about and that opens without a password."""
    notes = row["notes"].lower()
    locked = ("encrypted" in notes or "password" in notes) and not any(words in notes for words in OPENS)
    return not locked and not any(word in notes for word in ("malformed", "hostile", "damaged", "fuzz", "wrong extension"))


@functools.cache
def wordless():
    """Files that were looked at and hold no words."""
    return set((readers.HERE / "wordless.txt").read_text(encoding="utf-8").splitlines())


def everything(corpora):
    """All files, whatever they are."""
    paths = [corpora.path(row) for row in corpora.files]
    found, _, wall = readers.docmill(paths)
    table = collections.defaultdict(collections.Counter)
    for row in corpora.files:
        report = found[corpora.path(row)]
        table[row["format"]][report["outcome"]] += 1
        table[row["format"]]["without words"] += report["outcome"] in ("ok", "partial") and not report["words"]
    readable = [row for row in corpora.files if row["format"] in READABLE and undamaged(row) and row["path"] not in wordless()]
    silent = [(row["path"], found[corpora.path(row)]["outcome"]) for row in readable
              if found[corpora.path(row)]["outcome"] not in ("ok", "partial")]
    share = f"{len(readable) - len(silent)} of {len(readable)} undamaged PDF, HTML, DOCX, text and image files give text"
    peak = max(row["peak_rss_bytes"] for row in found.values()) >> 20
    slowest = max(row["millis"] for row in found.values()) / 1000
    return {"title": f"All {len(paths)} files in {wall:.0f} s; {share}; largest child {peak} MB, slowest file {slowest:.1f} s",
            "silent": silent, "table": {name: dict(counts) for name, counts in sorted(table.items())}}


def speed(corpora):
    """Processor time over PDFs whose pages all have a text layer, and files of mixed formats a second."""
    pdfs = [corpora.path(row) for row in corpora.files if row["format"] == "pdf" and row["pdfium_reference_text"]]
    pdfs += sorted(str(path) for path in (corpora.root / "kleister-nda/train/documents").glob("*.pdf"))
    bare, _, _ = readers.peer("pdfium", pdfs)
    ours, _, _ = readers.docmill(pdfs)
    pdfs = [path for path in pdfs if bare[path]["outcome"] == "ok" and set(ours[path]["page_outcomes"]) == {"text"}]
    pages = sum(bare[path]["pages"] for path in pdfs)
    table = {"docmill, sandbox included": {"pages/CPU s": pages / median(lambda: readers.docmill(pdfs, slots=1, rows=False)[1])}}
    for reader, name in (("pdfium", "bare pdfium, GetText"), ("kreuzberg_text", "kreuzberg"), ("pypdf", "pypdf")):
        table[name] = {"pages/CPU s": pages / median(lambda: readers.peer(reader, pdfs)[1])}
    mixed = pdfs + [corpora.path(row) for row in corpora.files if row["format"] in ("docx", "html", "md", "txt", "csv")
                    and not row["path"].startswith("_synthetic/hostile")]
    table["docmill, sandbox included"]["mixed files/s"] = len(mixed) / median(lambda: readers.docmill(mixed, rows=False)[2])
    table["kreuzberg"]["mixed files/s"] = len(mixed) / median(lambda: readers.peer("kreuzberg_batch", mixed)[2])
    return {"title": f"Speed: {len(pdfs)} PDFs of {pages} pages; {len(mixed)} mixed files; median of {ROUNDS} rounds", "table": table}


def median(measure):
    return statistics.median(measure() for _ in range(ROUNDS))


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else None


def ordered(found, paths):
    return [found[path] for path in paths]


def show(result):
    print(f"\n## {result['title']}\n")
    columns = list(dict.fromkeys(name for row in result["table"].values() for name in row))
    print("| | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for name, row in result["table"].items():
        print(f"| {name} | " + " | ".join(cell(row.get(column)) for column in columns) + " |")
    for f1, path in result.get("worst", []):
        print(f"- {f1:.3f} {path}")
    for path, outcome in result.get("silent", []):
        print(f"- {outcome} {path}")


def cell(value):
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) and value < 10 else f"{value:.0f}" if isinstance(value, float) else str(value)


PARTS = {"reference": reference, "truth": truth, "articles": articles, "receipts": receipts, "scans": scans, "hostile": hostile,
         "all": everything, "speed": speed}


def main():
    parser = argparse.ArgumentParser()
    beside = readers.WORKSPACE.parent / "shared/corpora"
    parser.add_argument("--corpora", type=pathlib.Path, default=os.environ.get("DOCMILL_CORPORA", beside))
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    readers.environment()
    readers.build()
    corpora = Corpora(pathlib.Path(arguments.corpora).resolve())
    print(f"{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} cores, {platform.machine()}, versions in requirements.txt")
    results = {}
    for part in arguments.only.split(","):
        results[part] = PARTS[part](corpora)
        show(results[part])
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
