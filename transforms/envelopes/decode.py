"""From one stream record to what it means; the same pure function for every reader (I6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.changes import Decoded, Reject
from transforms.envelopes import debezium, dms
from transforms.values.columns import UNFIT

if TYPE_CHECKING:
    from schemas.records import Record
    from transforms.context import DecodeContext

MAX_VALUE_BYTES = 64 * 1024 * 1024
"""A record larger than this is rejected unread; brokers and Kinesis (10 MiB) stop well before."""


def decode(record: Record, context: DecodeContext) -> Decoded:
    """Decode one record; never raises for its content.

    Deterministic: the same bytes and context give the same answer, so a record can be decoded again at any time,
    by a better decoder too.
    """
    if record.value is not None and len(record.value) > MAX_VALUE_BYTES:
        return Reject("RECORD_TOO_LARGE", f"the value has {len(record.value)} bytes; the limit is {MAX_VALUE_BYTES}")
    reader = debezium.decode if context.envelope == "debezium" else dms.decode
    try:
        return reader(record, context)
    except UNFIT as error:
        return Reject(
            "NOT_AN_ENVELOPE", f"a part of the envelope has another type than it should: {type(error).__name__}"
        )
