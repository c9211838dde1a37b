"""Which failures of a query mean that its stream has lost records: such a query cannot be started again.

An error of Spark's own source, or of ours inside Spark's Python process, reaches the driver as text inside a
StreamingQueryException, without its type. Only this module matches that text.
"""

from __future__ import annotations

import re

from schemas.errors import SourceGoneError

_KAFKA = "Some data may have been lost because they are not available in Kafka any more"
_KAFKA_REASON = re.compile(r"^Reason: (.+)$", re.MULTILINE)
_OURS = re.compile(r"SourceGoneError: (?P<message>.+?)(?:\nHint: (?P<hint>[^\n]+))?$", re.MULTILINE)


def restart_hint(checkpoint: str) -> str:
    """What to do about a job that cannot go on from its checkpoint (its folder under `checkpoint`)."""
    return (
        f"Let the capture take a new snapshot, move {checkpoint} away and run `ragstream run CONFIG` again: the job"
        " reads the stream from its start, and every store refuses what it already holds. Then run"
        " `ragstream reconcile CONFIG`."
    )


def source_gone(error: BaseException, checkpoint: str) -> SourceGoneError | None:
    """The error that names the lost records; None when the query died of something else."""
    if isinstance(error, SourceGoneError):
        return error
    text = str(error)
    ours = _OURS.search(text)
    if ours:
        return SourceGoneError(ours["message"], condition="SOURCE_GONE", hint=ours["hint"] or restart_hint(checkpoint))
    if _KAFKA in text:
        reason = _KAFKA_REASON.search(text)
        what = reason[1] if reason else "Offsets that the checkpoint needs are no longer there."
        message = f"Kafka no longer holds records that this job had not read: they are lost to it. {what}"
        return SourceGoneError(message, condition="SOURCE_OFFSETS_GONE", hint=restart_hint(checkpoint))
    return None
