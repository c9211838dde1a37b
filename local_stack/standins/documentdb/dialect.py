"""What DocumentDB accepts and refuses, where it differs from the MongoDB server behind the proxy. Pure.

Sources: Amazon DocumentDB's developer guide ("Vector search", "Supported MongoDB APIs, operations, and data types",
"Functional differences"). Codes that the guide does not name are MongoDB's.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MOST_DIMENSIONS = 2000
"""Of an indexed vector."""
MOST_BYTES = 16 * 1024 * 1024
"""Of a document."""
SIMILARITIES = ("euclidean", "cosine", "dotProduct")
_STAGES = frozenset({
    "$addFields", "$count", "$geoNear", "$group", "$indexStats", "$limit", "$lookup", "$match", "$out", "$project",
    "$redact", "$replaceRoot", "$sample", "$skip", "$sort", "$unwind",
})  # fmt: skip
_SEARCH = {"vector", "path", "similarity", "k", "efSearch", "probes"}
_BAD_VALUE, _ILLEGAL, _NOT_SUPPORTED, _NO_STAGE = 2, 20, 303, 304
_RETRYABLE, _TOO_LARGE = 301, 10334


class RefusedError(Exception):
    """A command that DocumentDB refuses."""

    def __init__(self, code: int, message: str) -> None:
        """Keep the error's code."""
        super().__init__(message)
        self.code = code

    def document(self) -> dict[str, Any]:
        """The response."""
        return {"ok": 0.0, "code": self.code, "errmsg": str(self)}


def hello() -> dict[str, Any]:
    """The `hello` response of a DocumentDB 5.0 primary, without a replica set: clients would connect to its members."""
    return {
        "ismaster": True, "isWritablePrimary": True, "helloOk": True, "maxBsonObjectSize": MOST_BYTES,
        "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000, "localTime": dt.datetime.now(dt.UTC),
        "logicalSessionTimeoutMinutes": 30, "minWireVersion": 0, "maxWireVersion": 13, "readOnly": False, "ok": 1.0,
    }  # fmt: skip


def check(command: Mapping[str, Any], largest: int) -> None:
    """Raise RefusedError for a command that DocumentDB refuses, or that the stand-in does not support.

    `largest` is the size of the largest document that the command brings, in bytes.
    """
    if largest > MOST_BYTES:
        raise RefusedError(_TOO_LARGE, f"a document of {largest} bytes")
    if "startTransaction" in command or "autocommit" in command:
        raise RefusedError(_ILLEGAL, "the stand-in for DocumentDB has no transactions")
    if "txnNumber" in command:
        raise RefusedError(_RETRYABLE, "Retryable writes are not supported")
    for update in command.get("updates", ()):
        if isinstance(update["u"], list):
            raise RefusedError(_NOT_SUPPORTED, "Feature not supported: update with a pipeline")
    for index in command.get("indexes", ()):
        _check_index(index)
    for place, stage in enumerate(command.get("pipeline", ())):
        _check_stage(next(iter(stage)), first=place == 0)


def _check_stage(name: str, *, first: bool) -> None:
    if name == "$search":
        if not first:
            raise RefusedError(_BAD_VALUE, "$search must be the first stage")
    elif name not in _STAGES:
        raise RefusedError(_NO_STAGE, f"Aggregation stage not supported: '{name}'")


def _check_index(index: Mapping[str, Any]) -> None:
    key, options = index["key"], index.get("vectorOptions")
    if ("vector" in key.values()) != (options is not None):
        raise RefusedError(_BAD_VALUE, 'vectorOptions goes with one key whose value is "vector"')
    if options is None:
        return
    if len(key) != 1 or not {"sparse", "partialFilterExpression", "unique"}.isdisjoint(index):
        raise RefusedError(_BAD_VALUE, "a vector index has one key, and is neither unique, sparse nor partial")
    kind = options.get("type", "hnsw")
    limits = {"hnsw": {"m": (2, 100), "efConstruction": (4, 1000)}, "ivfflat": {"lists": (1, 1_000_000)}}.get(kind)
    if limits is None:
        raise RefusedError(_BAD_VALUE, f"vectorOptions: no type {kind!r}")
    _require_known(options, {"type", "dimensions", "similarity", *limits}, "vectorOptions")
    for name, (least, most) in (limits | {"dimensions": (1, MOST_DIMENSIONS)}).items():
        if name in options or name in {"dimensions", "lists"}:
            _require_range(options, name, least, most)
    if options.get("similarity") not in SIMILARITIES:
        raise RefusedError(_BAD_VALUE, f"vectorOptions: similarity is one of {SIMILARITIES}")
    if kind == "hnsw" and options.get("efConstruction", 64) < 2 * options.get("m", 16):
        raise RefusedError(_BAD_VALUE, "vectorOptions: efConstruction is at least twice m")


def search_of(stage: Mapping[str, Any], indexes: Sequence[Mapping[str, Any]]) -> tuple[str, int]:
    """The path of a `$search`, and the most documents it returns.

    `indexes` are the collection's. An HNSW index gives no more than `efSearch`; whether DocumentDB gives more is not
    documented.
    """
    _require_known(stage, {"vectorSearch"}, "$search")
    search = stage.get("vectorSearch", {})
    _require_known(search, _SEARCH, "vectorSearch")
    if not {"vector", "path", "similarity", "k"} <= search.keys():
        raise RefusedError(_BAD_VALUE, "vectorSearch needs vector, path, similarity and k")
    if search["similarity"] not in SIMILARITIES:
        raise RefusedError(_BAD_VALUE, f"vectorSearch: similarity is one of {SIMILARITIES}")
    _require_range(search, "k", 1, 2**31 - 1)
    index = next((candidate for candidate in indexes if candidate["key"] == {search["path"]: "vector"}), None)
    if index is None:
        return search["path"], search["k"]
    options = index["vectorOptions"]
    if len(search["vector"]) != options["dimensions"] or search["similarity"] != options["similarity"]:
        raise RefusedError(_BAD_VALUE, "vectorSearch: the index has other dimensions, or another similarity")
    if options.get("type", "hnsw") == "hnsw":
        _require_range({"efSearch": 40} | search, "efSearch", 1, 1000)
        return search["path"], min(search["k"], search.get("efSearch", 40))
    return search["path"], search["k"]


def nearest(vectors: np.ndarray, wanted: Sequence[float], similarity: str, k: int) -> list[int]:
    """The rows of the k nearest vectors, nearest first, exactly; a zero vector has no cosine and is never near."""
    asked = np.asarray(wanted, "f8")
    scores = -np.linalg.norm(vectors - asked, axis=1) if similarity == "euclidean" else vectors @ asked
    if similarity == "cosine":
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(asked)
        scores = np.divide(scores, lengths, out=np.full(len(vectors), -np.inf), where=lengths > 0)
    rows = np.argsort(-scores, kind="stable")[:k]
    return [int(row) for row in rows if np.isfinite(scores[row])]


def _require_known(options: Mapping[str, Any], names: set[str], where: str) -> None:
    if unknown := set(options) - names:
        raise RefusedError(_BAD_VALUE, f"{where}: unknown {', '.join(sorted(unknown))}")


def _require_range(options: Mapping[str, Any], name: str, least: int, most: int) -> None:
    value = options.get(name)
    if not isinstance(value, int) or not least <= value <= most:
        raise RefusedError(_BAD_VALUE, f"{name} is a whole number from {least} to {most}")
