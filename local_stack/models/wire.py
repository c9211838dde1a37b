"""The Bedrock runtime's wire format: error answers and event-stream frames, without any server in it.

Sources: botocore's service model of bedrock-runtime, and Smithy's event-stream specification (big-endian lengths, CRC32s).
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

STATUS_OF = {
    "ValidationException": 400,
    "AccessDeniedException": 403,
    "ResourceNotFoundException": 404,
    "ModelErrorException": 424,
    "ModelNotReadyException": 429,
    "ThrottlingException": 429,
    "InternalServerException": 500,
    "ServiceUnavailableException": 503,
    "ValidationError": 400,
    "ModelError": 424,
    "InternalFailure": 500,
    "ServiceUnavailable": 503,
}
"""HTTP status of each error that bedrock-runtime, bedrock-agent-runtime and sagemaker-runtime name."""

_STRING_HEADER = 7
"""Type tag of a string value in an event-stream header."""


@dataclass
class WireError(Exception):
    """A request the runtime refuses, by the name botocore turns into an exception class."""

    name: str
    message: str
    retry_after: float | None = None
    more: Mapping[str, object] = field(default_factory=dict)
    """Further members of the error."""

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

    def body(self) -> dict[str, object]:
        """Return the JSON body of the answer; SageMaker's model writes `Message`."""
        return {"message": self.message, "Message": self.message, **self.more}


@dataclass
class ContainerError(Exception):
    """The error of a container behind a SageMaker endpoint."""

    status: int
    reason: str
    kind: str

    def to_wire(self) -> WireError:
        """The ModelError by which SageMaker hands it on."""
        original = json.dumps({"error": self.reason, "error_type": self.kind})
        message = f"Received client error ({self.status}) from primary with message {original!r}."
        details = {"OriginalStatusCode": self.status, "OriginalMessage": original, "LogStreamArn": "arn:aws:logs:local"}
        return WireError("ModelError", message, more=details)


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


def payload_part(raw: bytes) -> bytes:
    """Frame a part of SageMaker's response stream."""
    headers = {":event-type": "PayloadPart", ":content-type": "application/octet-stream", ":message-type": "event"}
    return _frame(headers, raw)


def stream_error(name: str, message: str) -> bytes:
    """Frame an error that ends SageMaker's response stream."""
    return exception(name, {"Message": message, "ErrorCode": "ModelInvocationTimeExceeded"})


def _frame(headers: Mapping[str, str], payload: Mapping[str, object] | bytes) -> bytes:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    head = b"".join(_header(name, value) for name, value in headers.items())
    # 16 = two lengths and the prelude's checksum before the headers, the message's checksum after the body.
    prelude = struct.pack(">II", 16 + len(head) + len(body), len(head))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + head + body
    return message + struct.pack(">I", zlib.crc32(message))


def _header(name: str, value: str) -> bytes:
    raw_name, raw_value = name.encode(), value.encode()
    return struct.pack(">B", len(raw_name)) + raw_name + struct.pack(">BH", _STRING_HEADER, len(raw_value)) + raw_value
