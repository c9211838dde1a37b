"""Classifies the failure of a query: a PipelineError restored from Spark's text, or a kind of Spark's own failure.

An exception that crosses a worker, Spark's source process or the JVM reaches the driver as text. Only its fixed parts are
matched and none of it is passed on, since it may quote a row.
"""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from schemas.errors import PipelineError, StoppedError, UnavailableError
from sources.loss import source_gone

_OURS = re.compile(r"^(?:[\w.]+\.)?(\w+): (.+?)(?:\nHint: (.+?))?(?=\n|\Z)", re.MULTILINE)

_UNREACHABLE = re.compile(
    r"java\.net\.(?:ConnectException|UnknownHostException|NoRouteToHostException|SocketTimeoutException|SocketException)"
    r"|org\.apache\.kafka\.common\.errors\.(?:Timeout|Disconnect|Network|NotLeaderOrFollower|LeaderNotAvailable"
    r"|BrokerNotAvailable|CoordinatorNotAvailable|CoordinatorLoadInProgress|NotCoordinator|UnknownTopicOrPartition)Exception"
    r"|java\.util\.concurrent\.TimeoutException"
    r"|java\.io\.EOFException: .*broker|SdkClientException: Unable to execute HTTP request|AWSServiceThrottledException"
)
"""Java's exceptions for a part that does not answer. Kafka's client calls a topic unknown while its leader changes; the
restart finds out whether it was deleted."""

_CONTENDED = re.compile(
    r"CONCURRENT_STREAM_LOG_UPDATE|DELTA_CONCURRENT_\w+|Concurrent(?:Append|Write|Transaction|DeleteRead|DeleteDelete)Exception"
    r"|ProtocolChangedException|MetadataChangedException|DELTA_CREATE_TABLE_WITH_NON_EMPTY_LOCATION"
)
"""Another driver or job won the commit; the batch succeeds when it runs again."""

_IN_READER = re.compile(r"\bReaderFailedError: (\w+ at (?:[\w.]+:\d+ <?\w+>?(?: < )?)+)")
"""An unexpected exception of a reader: its type and frames alone (`reader.failures`)."""
_CONDITION = re.compile(r"\[([A-Z][A-Z0-9_.]*)\] ")
_CAUSES = 5
"""Java exceptions of a chain that are named."""


class Kind(Enum):
    """The class of a failure, which decides about the restart."""

    UNAVAILABLE = "unavailable"
    """Restart without a limit, with a growing pause."""
    PROGRESS_BUG = "SPARK-55271"
    """Spark 4.1.1 fails reporting progress after the batch was done; restart at once."""
    CONTENDED = "contended"
    """Restart, up to a limit."""
    UNKNOWN = "unknown"
    """Restart, up to a lower limit."""
    FINAL = "final"
    """Stop the driver."""


def kind_of(error: BaseException, text: str, checkpoint: str) -> tuple[Kind, PipelineError | None]:
    """Classify a failure by the exception caught and Spark's text for it; returns our own error as well, if it was one."""
    ours = error if isinstance(error, PipelineError) else error_in(text)
    if isinstance(ours, UnavailableError):
        return Kind.UNAVAILABLE, ours
    if ours is not None:
        return Kind.FINAL, ours
    if "java.lang.NullPointerException" in text and "KafkaMicroBatchStream" in text and ".metrics(" in text:
        return Kind.PROGRESS_BUG, None
    gone = source_gone(RuntimeError(text), checkpoint)
    if gone is not None:
        return Kind.FINAL, gone
    if _CONTENDED.search(text):
        return Kind.CONTENDED, None
    if _UNREACHABLE.search(text):
        return Kind.UNAVAILABLE, None
    return Kind.UNKNOWN, None


def error_in(text: str) -> PipelineError | None:
    """The PipelineError in a text that quotes a Python traceback: the last one named is the one raised."""
    kinds = {kind.__name__: kind for kind in _family(PipelineError)}
    named = [match for match in _OURS.finditer(text) if match[1] in kinds]
    if not named:
        return None
    last = named[-1]
    return kinds[last[1]](last[2], hint=last[3] or "")


def spark_text(error: BaseException) -> str:
    """An exception of Spark's as text, with causes and Java frames; for matching only."""
    parts = [str(error)]
    origin: Any = getattr(error, "_origin", None) or getattr(error, "java_exception", None)
    if origin is not None:
        parts.append(java_text(origin))
    return "\n".join(parts)


def java_text(throwable: Any) -> str:
    """A Java throwable with its causes and frames."""
    from pyspark import SparkContext

    jvm: Any = SparkContext._jvm  # noqa: SLF001 - PySpark has no public way to a Java class
    return str(jvm.org.apache.spark.util.Utils.exceptionString(throwable))


def without_content(error: BaseException) -> str:
    """Describe an unexpected exception by types, Spark's conditions and our frames: its message may quote a row (I14)."""
    condition = getattr(error, "getCondition", lambda: None)() or " < ".join(_java_names(error))
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    reader = _IN_READER.search(str(error))
    return (
        f"{type(error).__name__}{f' [{condition}]' if condition else ''}{f' at {where}' if where else ''}"
        f"{f', in a reader: {reader[1]}' if reader else ''}"
    )


def _java_names(error: BaseException) -> Iterator[str]:
    """Name a Java exception and its causes, each by the condition at the head of its message, else by its class."""
    throwable: Any = getattr(error, "java_exception", None)
    for _ in range(_CAUSES):
        if throwable is None:
            return
        condition = _CONDITION.match(str(throwable.getMessage()))
        yield condition[1] if condition else str(throwable.getClass().getSimpleName())
        throwable = throwable.getCause()


def failed_too_often(name: str, tries: int, error: BaseException, batch_id: int | None) -> StoppedError:
    """The error of a query that failed too often at the same batch."""
    place = f"micro-batch {batch_id}" if batch_id is not None else "its start"
    return StoppedError(
        f"query {name} failed {tries} times at {place}: {without_content(error)}. Nothing is lost: it resumes where it"
        " stopped.",
        condition="QUERY_FAILED",
        hint="Mend the cause, then run `ragstream run CONFIG` again; `--log-level debug` shows Spark's own text, which may"
        " quote rows.",
    )


@contextlib.contextmanager
def wrap_failures(command: str, hint: str) -> Iterator[None]:
    """Raise any exception but ModuleNotFoundError as a PipelineError, without what it may quote (I14)."""
    try:
        yield
    except (PipelineError, ModuleNotFoundError):
        raise
    except Exception as error:  # noqa: BLE001 - reported by type and place
        _, own = kind_of(error, spark_text(error), "")
        message = f"{command} failed: {without_content(error)}."
        raise own or StoppedError(message, condition="COMMAND_FAILED", hint=hint) from None


def _family(kind: type[PipelineError]) -> set[type[PipelineError]]:
    return {kind}.union(*(_family(subclass) for subclass in kind.__subclasses__()))
