"""Our driver, with workers that note in a file when they begin and end each step.

python -m benchmarks.peers.noting FILE run CONFIG
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sinks import index_partition
from sinks.indexing import Indexing, Piece

if TYPE_CHECKING:
    from sinks.several import Missed

STEPS = ("capture", "to the worker", "decode", "read", "model", "keep vectors", "upsert", "rest")
"""Commit → Debezium's record at the broker → the worker's stage; then its steps, for each change of the group it came in."""

_spent: dict[str, float] = defaultdict(float)
_armed: list[Path] = []
_group: list[Any] = []
_began: list[float] = []
_sorted_out, _done = Indexing.sorted_out, Indexing.done


def timed[**P, R](step: str, function: Callable[P, R]) -> Callable[P, R]:
    """The function, its time added to a step's."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            _spent[step] += time.perf_counter() - began

    return run


def arm(path: Path) -> None:
    """Make this process note its steps in a file, once."""
    if _armed:
        return
    _armed.append(path)
    from embeddings.bedrock import BedrockEmbedder
    from sinks import indexing
    from sinks.pgvector import PgvectorSink

    setattr(indexing, "decode", timed("decode", getattr(indexing, "decode")))  # noqa: B009, B010 - a name it imports
    BedrockEmbedder.embed_documents = timed("model", BedrockEmbedder.embed_documents)  # type: ignore[method-assign]
    for step, names in {
        "read": ("read", "truncations", "missing_vectors"), "keep vectors": ("keep_vectors",), "upsert": ("write",),
    }.items():  # fmt: skip
        for name in names:
            setattr(PgvectorSink, name, timed(step, getattr(PgvectorSink, name)))
    setattr(Indexing, "sorted_out", arrived)  # noqa: B010
    setattr(Indexing, "done", noted)  # noqa: B010


def arrived(work: Indexing, records: Iterable[Any]) -> Piece:
    """`Indexing.sorted_out`, from which on a group's steps are timed."""
    _group[:] = list(records)
    _spent.clear()
    _began[:] = [time.time(), time.perf_counter()]
    return _sorted_out(work, _group)


def noted(work: Indexing, store: str, pieces: Sequence[Piece], missed: Missed | None) -> None:
    """`Indexing.done`, with a line in the file for each change of the group; there is one store."""
    _done(work, store, pieces, missed)
    came, began = _began
    steps = {name: round(_spent[name] * 1000, 2) for name in STEPS[2:-1]}
    steps["rest"] = round((time.perf_counter() - began - sum(_spent.values())) * 1000, 2)
    commits = [_commit_ms(record.value) for record in _group]
    with _armed[0].open("a") as file:
        for record, commit in zip(_group, commits, strict=True):
            if commit is not None and record.timestamp_ms is not None:
                way = {"capture": record.timestamp_ms - commit, "to the worker": came * 1000 - record.timestamp_ms}
                file.write(json.dumps({"commit": commit, "group": len(_group), **way, **steps}) + "\n")


def _commit_ms(value: bytes | None) -> float | None:
    """The source's commit time in a Debezium record, without or with its schema."""
    told = json.loads(value) if value else {}
    source = told.get("payload", told).get("source") or {}
    return source["ts_us"] / 1000 if source.get("ts_us") else None


def stage(path: Path, make: Callable[[Any], Any], settings: Any) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """The stage of index_documents in workers that note their steps."""
    made = make(settings)

    def run(groups: Iterable[Any]) -> Iterator[Any]:
        arm(path)
        yield from made(groups)

    return run


def drive(path: str, arguments: list[str]) -> None:
    """Run `ragstream` with such workers."""
    from glue_jobs.cli import main as ragstream

    arm(Path(path))
    noting = functools.partial(stage, Path(path), index_partition.index_groups)
    setattr(index_partition, "index_groups", noting)  # noqa: B010
    ragstream(arguments)


if __name__ == "__main__":
    # Under its own name, so that workers find by import what they are sent.
    from benchmarks.peers import noting  # noqa: PLW0406

    noting.drive(sys.argv[1], sys.argv[2:])
