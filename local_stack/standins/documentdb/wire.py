"""MongoDB's messages for the DocumentDB stand-in: OP_MSG, and OP_QUERY for a client's first command. Pure.

Source: MongoDB's manual, "MongoDB Wire Protocol".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import bson

HEADER = struct.Struct("<iiii")
"""Length of the message, request id, the request id it responds to, and opcode."""
_MSG, _QUERY, _REPLY = 2013, 2004, 1
_CHECKSUM, _NO_ANSWER = 1, 2
_LISTS = ("documents", "updates", "deletes")
"""Lists that a command carries in sections of their own, since a document is limited to 16 MB."""


@dataclass(frozen=True, slots=True)
class Command:
    """A client's command."""

    number: int
    document: dict[str, Any]
    legacy: bool = False
    """Whether it came as OP_QUERY."""
    answered: bool = True
    largest: int = 0
    """Bytes of the largest document in a section of its own."""

    @property
    def name(self) -> str:
        """The command itself: a document's first field."""
        return next(iter(self.document), "")


def command_of(header: bytes, body: bytes) -> Command:
    """Read a message.

    Raises:
        ValueError: it has an opcode that no supported client sends.
    """
    _, number, _, kind = HEADER.unpack(header)
    if kind == _QUERY:
        at = body.index(b"\0", 4) + 9
        return Command(number, bson.decode(body[at:]), legacy=True)
    if kind != _MSG:
        raise ValueError(f"a message of kind {kind}")
    (flags,) = struct.unpack_from("<I", body)
    end = len(body) - (4 if flags & _CHECKSUM else 0)
    document: dict[str, Any] = {}
    lists: dict[str, Any] = {}
    at, largest = 4, 0
    while at < end:
        (length,) = struct.unpack_from("<i", body, at + 1)
        part = body[at + 1 : at + 1 + length]
        if body[at] == 0:
            document = bson.decode(part)
        else:
            name, _, documents = part[4:].partition(b"\0")
            lists[name.decode()] = bson.decode_all(documents)
            largest = max(largest, *_sizes(documents))
        at += 1 + length
    return Command(number, document | lists, answered=not flags & _NO_ANSWER, largest=largest)


def _sizes(documents: bytes) -> Iterator[int]:
    at = 0
    while at < len(documents):
        (size,) = struct.unpack_from("<i", documents, at)
        yield size
        at += size


def request(number: int, document: Mapping[str, Any]) -> bytes:
    """Write a command for the server."""
    rest = {name: value for name, value in document.items() if name not in _LISTS}
    parts = [b"\0" + bson.encode(rest)]
    for name in _LISTS:
        if name in document:
            section = name.encode() + b"\0" + b"".join(map(bson.encode, document[name]))
            parts.append(b"\1" + struct.pack("<i", len(section) + 4) + section)
    return _message(number, 0, _MSG, struct.pack("<I", 0) + b"".join(parts))


def answer(command: Command, document: Mapping[str, Any]) -> bytes:
    """Write a response for the client, in the opcode of its request."""
    payload = bson.encode(document)
    if command.legacy:
        return _message(0, command.number, _REPLY, struct.pack("<iqii", 8, 0, 0, 1) + payload)
    return _message(0, command.number, _MSG, struct.pack("<I", 0) + b"\0" + payload)


def _message(number: int, response_to: int, kind: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), number, response_to, kind) + body
