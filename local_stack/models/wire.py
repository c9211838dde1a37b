"""The Bedrock runtime's wire format: error answers and event-stream frames, without any server in it.

Sources: botocore's service model of bedrock-runtime, and Smithy's event-stream specification (big-endian lengths, CRC32s).
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

STATUS_OF = {
    "ValidationException": 400,
    "AccessDeniedException": 403,
    "ResourceNotFoundException": 404,
    "ModelErrorException": 424,
    "ModelNotReadyException": 429,
    "ThrottlingException": 429,
    "InternalServerException": 500,
    "ServiceUnavailableException": 503,
}
"""HTTP status of each error the runtime names."""

_STRING_HEADER = 7
"""Type tag of a string value in an event-stream header."""


@dataclass
class WireError(Exception):
    """A request the runtime refuses, by the name botocore turns into an exception class."""

    name: str
    message: str
    retry_after: float | None = None

    @property
    def status(self) -> int:
        """The HTTP status that goes with the name."""
        return STATUS_OF[self.name]

    def headers(self) -> dict[str, str]:
        """Headers from which botocore tells the class, and a client how long to wait."""
        headers = {"x-amzn-ErrorType": self.name}
        if self.retry_after is not None:
            headers["Retry-After"] = f"{self.retry_after:g}"
        return headers

    def body(self) -> dict[str, str]:
        """Return the JSON body of the answer."""
        return {"message": self.message}


def malformed(reason: str) -> WireError:
    """Build Bedrock's error for a body that violates the model's schema."""
    return WireError(
        "ValidationException",
        f"Malformed input request: {reason}, please reformat your input and try again.",
    )


def event(name: str, payload: Mapping[str, object]) -> bytes:
    """Frame one event of a response stream."""
    return _frame({":event-type": name, ":content-type": "application/json", ":message-type": "event"}, payload)


def exception(name: str, payload: Mapping[str, object]) -> bytes:
    """Frame an error that ends a response stream; botocore raises it as EventStreamError."""
    return _frame({":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}, payload)


def _frame(headers: Mapping[str, str], payload: Mapping[str, object]) -> bytes:
    body = json.dumps(payload).encode()
    head = b"".join(_header(name, value) for name, value in headers.items())
    # 16 = two lengths and the prelude's checksum before the headers, the message's checksum after the body.
    prelude = struct.pack(">II", 16 + len(head) + len(body), len(head))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + head + body
    return message + struct.pack(">I", zlib.crc32(message))


def _header(name: str, value: str) -> bytes:
    raw_name, raw_value = name.encode(), value.encode()
    return struct.pack(">B", len(raw_name)) + raw_name + struct.pack(">BH", _STRING_HEADER, len(raw_value)) + raw_value
