"""A proxy that lets a small MongoDB server pass for DocumentDB: `… documentdb_proxy --port P --server-port Q -- COMMAND`.

It runs the server COMMAND, says what DocumentDB 5.0 says of itself, refuses what DocumentDB refuses, and answers
`$search.vectorSearch` exactly, from the server's own documents. Commands run one after the other, so that each is atomic.
`configureFailPoint` is MongoDB's own `failCommand` (errorCode, closeConnection, blockTimeMS), and `failItem` with
`errorCode` for one item of a bulk.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import bson
import numpy as np

from local_stack.ports import HOST
from local_stack.standins.documentdb.dialect import MOST_BYTES, RefusedError, check, hello, nearest, search_of
from local_stack.standins.documentdb.wire import HEADER, Command, answer, command_of, request
from local_stack.standins.proxied_server import options_of, serve_until_end, stop_requested

_LISTS = {"insert": "documents", "update": "updates", "delete": "deletes"}
_WRITES = {*_LISTS, "findAndModify", "drop", "dropDatabase", "createIndexes", "dropIndexes"}
_RANK = "__rank"
_NO_ITEM = 1_000_000
_BATCH = 1000
"""Documents of one answer, where a client leaves it open; else the server sends all at once."""


class _ClosedError(Exception):
    """A fail point closes the connection."""


class _FailPoint:
    """The fault of the next commands of some names."""

    def __init__(self) -> None:
        self._left: float = 0
        self._data: Mapping[str, Any] = {}

    def configure(self, command: Mapping[str, Any]) -> dict[str, Any]:
        mode = command["mode"]
        self._left = {"off": 0, "alwaysOn": float("inf")}[mode] if isinstance(mode, str) else mode["times"]
        self._data = command.get("data", {})
        return {"ok": 1.0}

    def take(self, name: str) -> Mapping[str, Any]:
        """The fault of this command; empty for none."""
        if not self._left or name not in self._data.get("failCommands", ()):
            return {}
        self._left -= 1
        return self._data


class _Server:
    """The server behind the proxy, by one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._lock = asyncio.Lock()
        self._vectors: dict[tuple[str, str, str], tuple[list[Any], np.ndarray]] = {}
        self.fail_point = _FailPoint()

    async def run(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Run one command as DocumentDB would."""
        name = next(iter(document))
        async with self._lock:
            if name in _WRITES:
                kept = {} if name == "dropDatabase" else self._vectors
                self._vectors = {
                    at: documents for at, documents in kept.items() if at[:2] != (document["$db"], document[name])
                }
            if name in {"find", "getMore"}:
                document = {**document, "batchSize": document.get("batchSize") or _BATCH}
            if name == "aggregate" and document["pipeline"] and "$search" in document["pipeline"][0]:
                return await self._searched(document)
            return await self._run(document)

    async def _run(self, document: Mapping[str, Any]) -> dict[str, Any]:
        self._writer.write(request(1, document))
        await self._writer.drain()
        header = await self._reader.readexactly(HEADER.size)
        body = await self._reader.readexactly(HEADER.unpack(header)[0] - HEADER.size)
        reply = command_of(header, body).document
        if "insert" in document and reply.get("writeErrors"):
            reply["n"] -= len(reply["writeErrors"])  # the server counts failed inserts too
        return reply

    async def _searched(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a pipeline that begins with a `$search`; the server runs later stages, unless they only pick fields."""
        database, collection = document["$db"], document["aggregate"]
        listed = await self._run({"listIndexes": collection, "$db": database})
        stage, *rest = document["pipeline"]
        path, most = search_of(stage["$search"], listed["cursor"]["firstBatch"])
        search = stage["$search"]["vectorSearch"]
        documents, vectors = await self._with_vectors(database, collection, path, len(search["vector"]))
        hits = [documents[row] for row in nearest(vectors, search["vector"], search["similarity"], most)]
        if all(_picks_fields(stage) for stage in rest):
            for stage in rest:
                fields = stage["$project"]
                hits = [{name: hit[name] for name in ("_id", *fields) if name in hit} for hit in hits]
            return {"cursor": {"id": 0, "ns": f"{database}.{collection}", "firstBatch": hits}, "ok": 1.0}
        ids = [hit["_id"] for hit in hits]
        ranked = [
            {"$match": {"_id": {"$in": ids}}}, {"$addFields": {_RANK: {"$indexOfArray": [ids, "$_id"]}}},
            {"$sort": {_RANK: 1}}, {"$project": {_RANK: 0}},
        ]  # fmt: skip
        return await self._run({**document, "pipeline": [*ranked, *rest]})

    async def _with_vectors(
        self, database: str, collection: str, path: str, dimensions: int
    ) -> tuple[list[Any], np.ndarray]:
        """Every document with a vector of that many dimensions; cached until the next write into the collection."""
        at = (database, collection, path)
        if at not in self._vectors:
            reply = await self._run({"find": collection, "batchSize": _BATCH, "$db": database})
            documents = reply["cursor"]["firstBatch"]
            while at_cursor := reply["cursor"]["id"]:
                more = {"getMore": at_cursor, "collection": collection, "batchSize": _BATCH, "$db": database}
                reply = await self._run(more)
                documents += reply["cursor"]["nextBatch"]
            matching = [d for d in documents if isinstance(d.get(path), list) and len(d[path]) == dimensions]
            self._vectors[at] = matching, np.array([d[path] for d in matching], "f8").reshape(-1, dimensions)
        return self._vectors[at]


def _picks_fields(stage: Mapping[str, Any]) -> bool:
    """Whether a stage only selects whole fields of a document."""
    return "$project" in stage and all(shown == 1 and "." not in name for name, shown in stage["$project"].items())


async def _answered(command: Command, server: _Server) -> Mapping[str, Any]:
    """Answer a command."""
    document = {name: value for name, value in command.document.items() if name not in {"lsid", "$clusterTime"}}
    if command.name.lower() in {"hello", "ismaster"}:
        return hello()
    if command.name == "buildInfo":
        return {"version": "5.0.0", "versionArray": [5, 0, 0, 0], "maxBsonObjectSize": MOST_BYTES, "ok": 1.0}
    if command.name == "configureFailPoint":
        return server.fail_point.configure(document)
    try:
        check(document, command.largest)
        fault = server.fail_point.take(command.name)
        await asyncio.sleep(fault.get("blockTimeMS", 0) / 1000)
        if fault.get("closeConnection"):
            raise _ClosedError
        if fault.get("failItem", _NO_ITEM) < len(document.get(_LISTS.get(command.name, ""), ())):
            return await _without_item(document, fault["failItem"], fault["errorCode"], server)
        if "errorCode" in fault and "failItem" not in fault:
            raise RefusedError(fault["errorCode"], "failed by a fail point")  # noqa: TRY301 - as DocumentDB does
        return await server.run(document)
    except RefusedError as refused:
        return refused.document()


async def _without_item(document: dict[str, Any], item: int, code: int, server: _Server) -> dict[str, Any]:
    """Answer a bulk of which one item fails."""
    listed = _LISTS[next(iter(document))]
    rest = [entry for place, entry in enumerate(document[listed]) if place != item]
    reply: dict[str, Any] = {"n": 0, "nModified": 0, "ok": 1.0}
    if rest:
        reply = await server.run({**document, listed: rest})
    write_errors: list[dict[str, Any]] = reply.get("writeErrors", [])
    errors = [error | {"index": error["index"] + (error["index"] >= item)} for error in write_errors]
    failed = {"index": item, "code": code, "errmsg": "failed by a fail point"}
    return reply | {"writeErrors": sorted([*errors, failed], key=lambda error: error["index"])}


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: _Server) -> None:
    """Answer one client until it disconnects."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, _ClosedError):
        while True:
            header = await reader.readexactly(HEADER.size)
            body = await reader.readexactly(HEADER.unpack(header)[0] - HEADER.size)
            command = command_of(header, body)
            reply = await _answered(command, server)
            if command.answered:
                writer.write(answer(command, reply))
                await writer.drain()
    writer.close()


async def _connected(port: int, process: subprocess.Popen[bytes]) -> _Server:
    """The server, once it listens."""
    while process.poll() is None:
        with contextlib.suppress(OSError):
            return _Server(*await asyncio.open_connection(HOST, port))
        await asyncio.sleep(0.05)
    sys.exit(1)


async def _run(port: int, server_port: int, process: subprocess.Popen[bytes]) -> None:
    stopped = stop_requested()
    server = await _connected(server_port, process)
    listener = await asyncio.start_server(lambda r, w: _serve(r, w, server), HOST, port)
    await serve_until_end(listener, process, stopped, signal.SIGTERM)


def main(arguments: Sequence[str]) -> None:
    """Run the server and the proxy until either is ended."""
    assert bson.has_c()  # noqa: S101 - vectors decoded in Python would take seconds
    options = options_of(arguments)
    asyncio.run(_run(options.port, options.server_port, subprocess.Popen(options.command)))


if __name__ == "__main__":
    main(sys.argv[1:])
