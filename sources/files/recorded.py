"""The parser of recorded events: one line to one record, byte for byte. Pure.

A line is a JSON object. Kafka: `topic key value partition offset timestamp headers`; Kinesis: `stream shard_id
sequence_number partition_key data arrival`. `key`, `value` and `data` are slices of the line's own text, not parsed and
written again, so 1.10, 1e400 and integers of any length arrive as they were recorded.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from schemas.records import Record

Format = Literal["kafka", "kinesis"]

MALFORMED_HEADER = "ragstream.malformed"
"""Header of the record of a malformed line; its value says what is wrong, without the line's text."""

_WHITESPACE = " \t\n\r"
_MAX_TIMESTAMP_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z, the last one a datetime can hold
_SECONDS_BELOW = 100_000_000_000  # an arrival below this is in seconds (the year 5138), above it in milliseconds

# Numbers stay text while the line is scanned: Python refuses integers of more than 4300 digits.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)


class _Member(NamedTuple):
    """One member of the line's object: the parsed value and the text it was parsed from."""

    parsed: Any
    text: str


class _MalformedLineError(ValueError):
    """The line is no recorded event; the message holds none of its text."""


def parse_line(line: bytes, form: Format, *, name: str, start: int) -> Record:
    """Parse one line; never raises.

    A line that is no recorded event becomes a record whose value is the raw line, whose stream is the file's `name` and
    whose position is the byte it starts at, marked by `MALFORMED_HEADER`: decoding rejects it and the stream goes on.
    """
    try:
        # Bytes that are no UTF-8 pass through unchanged both ways.
        members = _members(line.decode("utf-8", "surrogateescape"))
        return _kafka(members) if form == "kafka" else _kinesis(members)
    except (ValueError, RecursionError) as problem:
        reason = str(problem) if isinstance(problem, _MalformedLineError) else "the line is no JSON object"
        return Record(name, "", str(start), None, line, ((MALFORMED_HEADER, reason.encode()),), None)


def _members(text: str) -> dict[str, _Member]:
    """Split a JSON object's text into its members, each with its own text."""
    members: dict[str, _Member] = {}
    at = _expect(text, _skip(text, 0), "{")
    if text[_skip(text, at)] == "}":
        at = _skip(text, at) + 1
    else:
        while True:
            name, at = _DECODER.raw_decode(text, _skip(text, at))
            if not isinstance(name, str):
                raise _MalformedLineError("the line is no JSON object")
            begin = _skip(text, _expect(text, _skip(text, at), ":"))
            parsed, at = _DECODER.raw_decode(text, begin)
            members[name] = _Member(parsed, text[begin:at])
            at = _skip(text, at)
            if text[at : at + 1] != ",":
                break
            at += 1
        at = _expect(text, at, "}")
    if text[at:].strip(_WHITESPACE):
        raise _MalformedLineError("text follows the JSON object")
    return members


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in _WHITESPACE:
        at += 1
    if at >= len(text):
        raise _MalformedLineError("the line is cut short")
    return at


def _expect(text: str, at: int, token: str) -> int:
    if text[at : at + 1] != token:
        raise _MalformedLineError("the line is no JSON object")
    return at + 1


def _kafka(members: Mapping[str, _Member]) -> Record:
    return Record(
        stream=_text(members, "topic"),
        partition=_text(members, "partition"),
        position=_text(members, "offset"),
        key=_content(members, "key"),
        value=_content(members, "value"),
        headers=_headers(members),
        timestamp_ms=_time(members, "timestamp"),
    )


def _kinesis(members: Mapping[str, _Member]) -> Record:
    partition_key = members.get("partition_key")
    return Record(
        stream=_text(members, "stream"),
        partition=_text(members, "shard_id"),
        position=_text(members, "sequence_number"),
        key=None if partition_key is None or partition_key.parsed is None else _bytes(str(partition_key.parsed)),
        value=_data(members),
        headers=(),
        timestamp_ms=_time(members, "arrival"),
    )


def _text(members: Mapping[str, _Member], name: str) -> str:
    """Read a coordinate, which may be written as a string or a whole number."""
    member = members.get(name)
    if member is None or not isinstance(member.parsed, str) or not member.parsed:
        raise _MalformedLineError(f"the line has no usable {name}")
    return member.parsed


def _content(members: Mapping[str, _Member], name: str) -> bytes | None:
    """Take a key or value: null is None, a string stands for its own text, anything else for its JSON text."""
    member = members.get(name)
    if member is None:
        raise _MalformedLineError(f"the line has no {name}")
    if member.parsed is None:
        return None
    return _bytes(member.parsed if member.text.startswith('"') else member.text)


def _data(members: Mapping[str, _Member]) -> bytes:
    """Take a Kinesis record's data: a JSON object as it stands, or the base64 of any bytes."""
    content = _content(members, "data")
    if content is None:
        raise _MalformedLineError("the line has no data")
    if not members["data"].text.startswith('"'):
        return content
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error:
        return content


def _headers(members: Mapping[str, _Member]) -> tuple[tuple[str, bytes | None], ...]:
    member = members.get("headers")
    if member is None or member.parsed is None:
        return ()
    pairs = member.parsed
    if not isinstance(pairs, list):
        raise _MalformedLineError("the line's headers are no list")
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise _MalformedLineError("a header of the line is no [name, text] pair")
        if not (pair[1] is None or isinstance(pair[1], str)):
            raise _MalformedLineError("a header's value in the line is no text")
    return tuple(
        (_bytes(name).decode("utf-8", "replace"), None if value is None else _bytes(value)) for name, value in pairs
    )


def _time(members: Mapping[str, _Member], name: str) -> int | None:
    """Read a time in milliseconds since the epoch; a Kinesis arrival may also be in seconds or ISO 8601."""
    member = members.get(name)
    if member is None or member.parsed is None:
        return None
    try:
        milliseconds = _milliseconds(str(member.parsed), quoted=member.text.startswith('"'))
    except (ValueError, OverflowError):
        raise _MalformedLineError(f"the line's {name} is no time") from None
    if milliseconds > _MAX_TIMESTAMP_MS:
        raise _MalformedLineError(f"the line's {name} is out of range")
    return milliseconds if milliseconds >= 0 else None  # Kafka writes -1 for none


def _milliseconds(text: str, *, quoted: bool) -> int:
    if quoted and not text.replace(".", "", 1).isdigit():
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return int(moment.timestamp() * 1000)
    number = float(text)
    return round(number * 1000) if abs(number) < _SECONDS_BELOW else int(number)


def _bytes(text: str) -> bytes:
    """Encode text; undecodable bytes come back as they were, and a lone surrogate keeps its (invalid) three bytes."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
