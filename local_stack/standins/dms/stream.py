"""Writes DMS's records to Kinesis: in order for each partition key, at least once."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import simplejson
from botocore.exceptions import BotoCoreError, ClientError

from schemas.errors import StoppedError

_PUT_RECORDS = 500
_PUT_BYTES = 4_000_000
"""PutRecords takes 500 records and at least 5 MiB (Kinesis API reference)."""
_FATAL = {"ValidationException", "InvalidArgumentException", "ResourceNotFoundException", "AccessDeniedException"}


class Record(NamedTuple):
    """A partition key and the JSON document that goes under it."""

    key: str
    document: dict[str, Any]


class StreamWriter:
    """One stream; when `write` returns, its records are in it."""

    def __init__(self, kinesis: Any, stream: str, stop: threading.Event) -> None:
        """Keep the client; `stop` ends a wait for an endpoint that does not answer."""
        self._kinesis, self._stream, self._stop = kinesis, stream, stop

    def write(self, records: Iterable[Record]) -> None:
        """Send all; raises InterruptedError after a stop request, StoppedError when Kinesis refuses a record for good."""
        for entries in _requests(records):
            self._send(entries)

    def _send(self, entries: list[dict[str, Any]]) -> None:
        """Send until all are in.

        After a partial failure everything from a key's first failure on goes again, so that a key's last records are in
        order; some are in the stream twice then, as they may be with DMS.
        """
        while entries:
            if self._stop.is_set():
                raise InterruptedError
            try:
                answer = self._kinesis.put_records(StreamName=self._stream, Records=entries)
            except ClientError as error:
                if error.response["Error"]["Code"] in _FATAL:
                    raise StoppedError(
                        f"Kinesis refuses a record or the stream {self._stream} ({error.response['Error']['Code']}).",
                        hint="A record holds one row and at most 1 MiB, unless the stream's MaxRecordSizeInKiB is raised.",
                    ) from None
                self._stop.wait(0.2)
                continue
            except BotoCoreError:
                self._stop.wait(0.5)
                continue
            failed: set[str] = set()
            again = []
            for entry, result in zip(entries, answer["Records"], strict=True):
                if result.get("ErrorCode"):
                    failed.add(entry["PartitionKey"])
                if entry["PartitionKey"] in failed:
                    again.append(entry)
            entries = again
            if entries:
                self._stop.wait(0.1)


def _requests(records: Iterable[Record]) -> Iterator[list[dict[str, Any]]]:
    part: list[dict[str, Any]] = []
    size = 0
    for key, document in records:
        # JSON_UNFORMATTED: one line, and its end.
        data = simplejson.dumps(document, use_decimal=True, separators=(",", ":")).encode() + b"\n"
        if part and (len(part) == _PUT_RECORDS or size + len(data) > _PUT_BYTES):
            yield part
            part, size = [], 0
        part.append({"PartitionKey": key[:256], "Data": data})
        size += len(data)
    if part:
        yield part
