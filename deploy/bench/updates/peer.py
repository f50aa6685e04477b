"""CocoIndex as its own text embedding example has it, with Docmill's model: a process that does one thing a line of input.

    PEER_DATABASE_URL=… python peer.py FOLDER STATE_FOLDER MODEL_FOLDER COUNTER_FILE

A line is `update`; the answer is a line of JSON with the seconds and CPU seconds of the update. COUNTER_FILE holds texts
handed to the model, as 8 bytes, little-endian: it survives a SIGKILL of this process. Differences from the example: files of
any name, chunks of about the size of Docmill's, the model by ONNX Runtime.
"""
import json
import mmap
import os
import pathlib
import struct
import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what CocoIndex says, also while it is imported, goes to the errors

import asyncpg
import cocoindex as coco
import numpy as np
from cocoindex.connectors import localfs, postgres
from cocoindex.ops.text import RecursiveSplitter
from cocoindex.resources import schema
from cocoindex.resources.chunk import Chunk
from cocoindex.resources.file import FileLike, PatternFilePathMatcher
from cocoindex.resources.id import IdGenerator
from numpy.typing import NDArray

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "retrieval"))
from minilm import MiniLM

TABLE = "passages"
CHUNK_BYTES, BATCH = 800, 64

_splitter = RecursiveSplitter()


class Counter:
    """A number in a file that is mapped into memory: what was added stays when the process is killed."""

    def __init__(self, path):
        self.file = open(path, "r+b")
        self.bytes, self.lock = mmap.mmap(self.file.fileno(), 8), threading.Lock()

    def add(self, number):
        with self.lock:
            self.bytes[:] = struct.pack("<q", struct.unpack("<q", self.bytes[:])[0] + number)


class Embedder:
    """As CocoIndex's SentenceTransformerEmbedder: a remembered call for one text, batches of at most 64 below it."""

    def __init__(self, folder, counter):
        self.model, self.counter = MiniLM(folder, threads=1), counter

    @coco.fn.as_async(batching=True, runner=coco.GPU, max_batch_size=BATCH)
    def _embed(self, texts: list[str]) -> list[NDArray[np.float32]]:
        vectors = list(self.model.embed(texts, batch=BATCH))
        self.counter.add(len(texts))
        return vectors

    @coco.fn(memo=True, version=1, logic_tracking="self")
    async def embed(self, text: str) -> NDArray[np.float32]:
        return await self._embed(text)

    async def __coco_vector_schema__(self):
        return schema.VectorSchema(dtype=np.dtype(np.float32), size=384)

    def __coco_memo_key__(self):
        return "all-MiniLM-L6-v2"


MODEL = Embedder(sys.argv[3], Counter(sys.argv[4]))
DATABASE = coco.ContextKey[asyncpg.Pool]("database")
EMBEDDER = coco.ContextKey[Embedder]("embedder")


@dataclass
class Passage:
    id: int
    filename: str
    chunk_start: int
    chunk_end: int
    text: str
    embedding: Annotated[NDArray, EMBEDDER]


@coco.lifespan
async def lifespan(builder: coco.EnvironmentBuilder) -> AsyncIterator[None]:
    async with await asyncpg.create_pool(os.environ["PEER_DATABASE_URL"]) as pool:
        builder.provide(DATABASE, pool)
        builder.provide(EMBEDDER, MODEL)
        yield


@coco.fn
async def process_chunk(chunk: Chunk, filename: pathlib.PurePath, ids: IdGenerator, table: postgres.TableTarget[Passage]) -> None:
    table.declare_row(row=Passage(
        id=await ids.next_id(chunk.text), filename=str(filename), chunk_start=chunk.start.char_offset,
        chunk_end=chunk.end.char_offset, text=chunk.text, embedding=await coco.use_context(EMBEDDER).embed(chunk.text)))


@coco.fn(memo=True)
async def process_file(file: FileLike, table: postgres.TableTarget[Passage]) -> None:
    chunks = _splitter.split(await file.read_text(), chunk_size=CHUNK_BYTES, chunk_overlap=0, language="markdown")
    await coco.map(process_chunk, chunks, file.file_path.path, IdGenerator(), table)


@coco.fn
async def main(folder: pathlib.Path) -> None:
    rows = await postgres.TableSchema.from_class(Passage, primary_key=["id"])
    table = await postgres.mount_table_target(DATABASE, table_name=TABLE, table_schema=rows)
    table.declare_vector_index(column="embedding")
    files = localfs.walk_dir(folder, recursive=True, path_matcher=PatternFilePathMatcher(included_patterns=["**/*"]))
    await coco.mount_each(process_file, files.items(), table)


if __name__ == "__main__":
    os.environ["COCOINDEX_DB"] = sys.argv[2]
    app = coco.App(coco.AppConfig(name="updates"), main, folder=pathlib.Path(sys.argv[1]))
    print(json.dumps({"ready": True}), file=ANSWERS, flush=True)
    for line in sys.stdin:
        if line.strip() != "update":
            raise SystemExit(f"what is {line.strip()!r}?")
        started, cpu = time.monotonic(), time.process_time()
        app.update_blocking()
        print(json.dumps({"seconds": time.monotonic() - started, "cpu": time.process_time() - cpu}), file=ANSWERS, flush=True)
