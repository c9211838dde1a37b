"""A proxy that lets a small MongoDB server pass for DocumentDB: `… documentdb_proxy --port P --server-port Q -- COMMAND`.

It runs the server COMMAND, says what DocumentDB 5.0 says of itself, refuses what DocumentDB refuses, and answers
`$search.vectorSearch` exactly, from the server's own documents. Commands run one after the other, so that each is atomic.
`configureFailPoint` is MongoDB's own `failCommand` (errorCode, closeConnection, blockTimeMS), and `failItem` with
`errorCode` for one item of a bulk.
"""

from __future__ import annotations

import argparse
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
from local_stack.standins.proxied_server import serve_until_end, stop_requested

_LISTS = {"insert": "documents", "update": "updates", "delete": "deletes"}
_WRITES = {*_LISTS, "findAndModify", "drop", "dropDatabase", "createIndexes", "dropIndexes"}
_RANK = "__rank"
_NO_ITEM = 1_000_000
_BATCH = 1000
"""Documents of one answer, where a client leaves it open; else the server sends all at once."""


class _ClosedError(Exception):
    """A fail point closes the connection."""


class _FailPoint:
    """What the next commands of some names answer in place of an answer."""

    def __init__(self) -> None:
        self._left: float = 0
        self._data: Mapping[str, Any] = {}

    def configure(self, told: Mapping[str, Any]) -> dict[str, Any]:
        mode = told["mode"]
        self._left = {"off": 0, "alwaysOn": float("inf")}[mode] if isinstance(mode, str) else mode["times"]
        self._data = told.get("data", {})
        return {"ok": 1.0}

    def take(self, name: str) -> Mapping[str, Any]:
        """What is to happen to this command."""
        if not self._left or name not in self._data.get("failCommands", ()):
            return {}
        self._left -= 1
        return self._data


class _Server:
    """The server behind, by one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._taken = asyncio.Lock()
        self._vectors: dict[tuple[str, str, str], tuple[list[Any], np.ndarray]] = {}
        self.fail_point = _FailPoint()

    async def run(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Run one command as DocumentDB would."""
        name = next(iter(document))
        async with self._taken:
            if name in _WRITES:
                kept = {} if name == "dropDatabase" else self._vectors
                self._vectors = {at: held for at, held in kept.items() if at[:2] != (document["$db"], document[name])}
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
        told = command_of(header, body).document
        if "insert" in document and told.get("writeErrors"):
            told["n"] -= len(told["writeErrors"])  # the server counts what it was given
        return told

    async def _searched(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a pipeline that begins with a `$search`; what comes behind it is the server's, unless it picks fields."""
        database, collection = document["$db"], document["aggregate"]
        listed = await self._run({"listIndexes": collection, "$db": database})
        stage, *rest = document["pipeline"]
        path, most = search_of(stage["$search"], listed["cursor"]["firstBatch"])
        told = stage["$search"]["vectorSearch"]
        held, vectors = await self._held(database, collection, path, len(told["vector"]))
        found = [held[row] for row in nearest(vectors, told["vector"], told["similarity"], most)]
        if all(_picks_fields(stage) for stage in rest):
            for stage in rest:
                fields = stage["$project"]
                found = [{name: each[name] for name in ("_id", *fields) if name in each} for each in found]
            return {"cursor": {"id": 0, "ns": f"{database}.{collection}", "firstBatch": found}, "ok": 1.0}
        ids = [each["_id"] for each in found]
        ranked = [
            {"$match": {"_id": {"$in": ids}}}, {"$addFields": {_RANK: {"$indexOfArray": [ids, "$_id"]}}},
            {"$sort": {_RANK: 1}}, {"$project": {_RANK: 0}},
        ]  # fmt: skip
        return await self._run({**document, "pipeline": [*ranked, *rest]})

    async def _held(self, database: str, collection: str, path: str, dimensions: int) -> tuple[list[Any], np.ndarray]:
        """Every document with a vector of that many dimensions; kept until the next write into the collection."""
        at = (database, collection, path)
        if at not in self._vectors:
            told = await self._run({"find": collection, "batchSize": _BATCH, "$db": database})
            found = told["cursor"]["firstBatch"]
            while at_cursor := told["cursor"]["id"]:
                more = {"getMore": at_cursor, "collection": collection, "batchSize": _BATCH, "$db": database}
                told = await self._run(more)
                found += told["cursor"]["nextBatch"]
            held = [each for each in found if isinstance(each.get(path), list) and len(each[path]) == dimensions]
            self._vectors[at] = held, np.array([each[path] for each in held], "f8").reshape(len(held), dimensions)
        return self._vectors[at]


def _picks_fields(stage: Mapping[str, Any]) -> bool:
    """Whether a stage shows whole fields of a document, and no more."""
    return "$project" in stage and all(shown == 1 and "." not in name for name, shown in stage["$project"].items())


async def _answered(command: Command, server: _Server) -> Mapping[str, Any]:
    """The answer to a command."""
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
    """The answer to a bulk of which one item fails."""
    listed = _LISTS[next(iter(document))]
    rest = [each for place, each in enumerate(document[listed]) if place != item]
    told: dict[str, Any] = {"n": 0, "nModified": 0, "ok": 1.0}
    if rest:
        told = await server.run({**document, listed: rest})
    held: list[dict[str, Any]] = told.get("writeErrors", [])
    errors = [error | {"index": error["index"] + (error["index"] >= item)} for error in held]
    mine = {"index": item, "code": code, "errmsg": "failed by a fail point"}
    return told | {"writeErrors": sorted([*errors, mine], key=lambda error: error["index"])}


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: _Server) -> None:
    """Answer one client until it goes."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, _ClosedError):
        while True:
            header = await reader.readexactly(HEADER.size)
            body = await reader.readexactly(HEADER.unpack(header)[0] - HEADER.size)
            command = command_of(header, body)
            told = await _answered(command, server)
            if command.answered:
                writer.write(answer(command, told))
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
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--server-port", type=int, required=True)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    asyncio.run(_run(options.port, options.server_port, subprocess.Popen(options.command)))


if __name__ == "__main__":
    main(sys.argv[1:])
