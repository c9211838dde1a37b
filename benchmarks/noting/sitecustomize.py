"""Records the steps of each change with their milliseconds, in every Python with this folder on its path and `STEPS_FILE` set.

Python imports a module of this name as it starts: the product needs no hook for it. Methods are wrapped, by name, when their
modules have been imported; a line a change is written when a store has it. Collections of garbage of over a millisecond have
a line too.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

DECODE, WRITE = "indexing.indexer:Indexer.decode", "indexing.store_writer:StoreWriter.write"
INNER = {
    "read": ("read_with_truncations", "missing_vectors"),
    "keep vectors": ("keep_vectors",),
    "upsert": ("write",),
}
"""Steps inside a store's write: methods of its sink."""
SINK, MODEL = "sinks.pgvector.writer:PgvectorSink", "embeddings.bedrock.embedder:BedrockEmbedder.embed_documents"
_came: dict[int, tuple[float, float, list[tuple[float, float]]]] = {}
"""By work unit: arrival and decoding time of its records, and commit and broker time of each."""
_here = threading.local()
_collecting: list[float] = []


def timed(step: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method so that its time is added to a step of this thread."""

    @functools.wraps(method)
    def run(*args: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return method(*args, **options)
        finally:
            _here.__dict__.setdefault("spent", defaultdict(float))[step] += time.perf_counter() - began

    return run


def decoding(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `Indexer.decode` so that it records the arrival of its work unit."""

    @functools.wraps(method)
    def decode(indexer: Any, records: Iterable[Any]) -> Any:
        came, taken = time.time() * 1000, list(records)
        unit = method(indexer, taken)
        times = [(commit, record.timestamp_ms) for record in taken if (commit := commit_ms(record.value)) is not None]
        _came[id(unit)] = came, time.time() * 1000, times
        return unit

    return decode


def writing(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `StoreWriter.write` so that it writes a line for each change of its work units; for one store."""

    @functools.wraps(method)
    def write(writer: Any, units: Sequence[Any], **options: Any) -> Any:
        began, _here.spent = time.time() * 1000, defaultdict(float)
        written = method(writer, units, **options)
        ended = time.time() * 1000
        inner = {step: _here.spent[step] * 1000 for step in (*INNER, "model")}
        inner["rest"] = ended - began - sum(inner.values())
        lines: list[dict[str, float]] = []
        for unit in units:
            came, decoded, times = _came.pop(id(unit), (0.0, 0.0, []))
            waits = {"decode": decoded - came, "wait for the store": began - decoded}
            lines += [
                {
                    "at": commit,
                    "group": len(times),
                    "units": len(units),
                    "capture": at - commit,
                    "to the reader": came - at,
                }
                | waits
                | inner
                for commit, at in times
            ]
        note(lines)
        return written

    return write


def note(lines: Sequence[dict[str, float]]) -> None:
    """Append lines to the file, as one write."""
    with open(os.environ["STEPS_FILE"], "a") as file:  # noqa: PTH123 - no import more than is needed in every process
        file.write("".join(json.dumps(line) + "\n" for line in lines))


def commit_ms(value: bytes | None) -> float | None:
    """The source's commit time in a Debezium record, without or with its schema."""
    change = json.loads(value) if value else {}
    source = change.get("payload", change).get("source") or {}
    return source["ts_us"] / 1000 if source.get("ts_us") else None


def collected(phase: str, _: dict[str, int]) -> None:
    """A callback of the garbage collector."""
    if phase == "start":
        _collecting[:] = [time.time()]
    elif _collecting and (took := (time.time() - _collecting[0]) * 1000) > 1:
        note([{"at": _collecting[0] * 1000, "pid": os.getpid(), "ms": took}])


def arm() -> None:
    """Wrap the methods once their modules are imported."""
    places: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {DECODE: decoding, WRITE: writing}
    places |= {f"{SINK}.{name}": functools.partial(timed, step) for step, names in INNER.items() for name in names}
    places[MODEL] = functools.partial(timed, "model")
    while places:
        time.sleep(0.1)
        for place in [place for place in places if place.partition(":")[0] in sys.modules]:
            module, _, path = place.partition(":")
            owner, _, name = path.partition(".")
            kind = getattr(importlib.import_module(module), owner, None)
            if kind is not None:  # else it is being imported
                setattr(kind, name, places.pop(place)(getattr(kind, name)))
    gc.callbacks.append(collected)


if "STEPS_FILE" in os.environ:
    threading.Thread(target=arm, daemon=True, name="noting").start()
