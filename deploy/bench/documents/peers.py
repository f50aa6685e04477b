"""Runs one reader over a list of files and writes a JSON line a file. Started by compare.py, one process per reader.

usage: peers.py READER LIST OUT, where READER is one of READERS below, and LIST holds one path a line.

The last line holds processor and wall seconds of the whole loop: imports, start-up and writing results are not counted, which
is to the readers' favour.
"""

import json
import os
import resource
import subprocess
import sys
import time


def kreuzberg():
    from kreuzberg import ExtractionConfig, OcrConfig, extract_file_sync

    config = ExtractionConfig(use_cache=False, ocr=OcrConfig(backend="tesseract", language="eng"))
    return lambda path: _kreuzberg(extract_file_sync(path, None, config))


def kreuzberg_text():
    """Without OCR, which files with a text layer do not need."""
    from kreuzberg import ExtractionConfig, extract_file_sync

    config = ExtractionConfig(use_cache=False, disable_ocr=True)
    return lambda path: _kreuzberg(extract_file_sync(path, None, config))


def kreuzberg_batch(paths):
    """All files in one call, over its own threads."""
    from kreuzberg import ExtractionConfig, batch_extract_files_sync

    config = ExtractionConfig(use_cache=False, disable_ocr=True)
    return [{"path": path, "outcome": "ok", **_kreuzberg(result)} for path, result in zip(paths, batch_extract_files_sync(paths, config))]


def _kreuzberg(result):
    return {"text": result.content, "tables": [table.cells for table in result.tables]}


def pypdf():
    from pypdf import PdfReader

    def read(path):
        reader = PdfReader(path)
        pages = [page.extract_text() for page in reader.pages]
        return {"text": "\n".join(pages), "pages": len(pages)}

    return read


def pdfium():
    import pypdfium2

    def read(path):
        document = pypdfium2.PdfDocument(path)
        # FPDFText_GetText over the whole page, the fastest way to its text.
        pages = [page.get_textpage().get_text_range() for page in document]
        return {"text": "\n".join(pages), "pages": len(pages)}

    return read


def tesseract():
    environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}

    def read(path):
        command = ["tesseract", path, "stdout", "-l", "eng"]
        return {"text": subprocess.run(command, capture_output=True, check=True, text=True, env=environment).stdout}

    return read


def cpu_secs():
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


READERS = {
    "kreuzberg": kreuzberg,
    "kreuzberg_text": kreuzberg_text,
    "pypdf": pypdf,
    "pdfium": pdfium,
    "tesseract": tesseract,
}


def one_by_one(read, paths):
    rows = []
    for path in paths:
        started = time.monotonic()
        try:
            row = {"outcome": "ok", **read(path)}
        except Exception as error:  # a reader's failure is a result
            row = {"outcome": type(error).__name__, "text": ""}
        rows.append({"path": path, "millis": round(1000 * (time.monotonic() - started)), **row})
    return rows


def main():
    reader, listed, out = sys.argv[1:4]
    with open(listed, encoding="utf-8") as lines:
        paths = lines.read().splitlines()
    if reader == "kreuzberg_batch":
        import kreuzberg  # noqa: F401  imports are not counted

        work = lambda: kreuzberg_batch(paths)  # noqa: E731
    else:
        read = READERS[reader]()
        work = lambda: one_by_one(read, paths)  # noqa: E731
    cpu, wall = cpu_secs(), time.monotonic()
    rows = work()
    total = {"cpu_secs": cpu_secs() - cpu, "wall_secs": time.monotonic() - wall}
    with open(out, "w", encoding="utf-8") as file:
        for row in [*rows, total]:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
