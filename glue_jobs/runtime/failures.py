"""What a query died of: our own error with its type again, or what is known of Spark's.

An exception reaches the driver as text once it has crossed a worker, Spark's own source process or the JVM. Only the
fixed parts of that text are looked at, and none of it is passed on: it may quote a row.
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
"""Java's names for a part that does not answer. Kafka's client calls a topic unknown while its leader changes; one that
is really gone is told apart when the query starts again."""

_CONTENDED = re.compile(
    r"CONCURRENT_STREAM_LOG_UPDATE|DELTA_CONCURRENT_\w+|Concurrent(?:Append|Write|Transaction|DeleteRead|DeleteDelete)Exception"
    r"|ProtocolChangedException|MetadataChangedException|DELTA_CREATE_TABLE_WITH_NON_EMPTY_LOCATION"
)
"""Another driver, or another job of this one, was first; the same batch goes through when it is run again."""


_IN_READER = re.compile(r"\bReaderFailedError: (\w+ at (?:[\w.]+:\d+ <?\w+>?(?: < )?)+)")
"""What a reader told of an unexpected exception: its type and places alone (`reader.failures`)."""
_CONDITION = re.compile(r"\[([A-Z][A-Z0-9_.]*)\] ")
_CAUSES = 5
"""Java exceptions of a chain that are named."""


class Kind(Enum):
    """What becomes of a query after a failure."""

    UNAVAILABLE = "unavailable"
    """Start again with a growing pause, however long it takes."""
    PROGRESS_BUG = "SPARK-55271"
    """Spark 4.1.1 dies reporting progress after the batch was done; start again at once."""
    CONTENDED = "contended"
    """Start again, up to a limit."""
    UNKNOWN = "unknown"
    """Start again, up to a lower limit."""
    FINAL = "final"
    """Stop the driver."""


def kind_of(error: BaseException, text: str, checkpoint: str) -> tuple[Kind, PipelineError | None]:
    """Judge a failure by the exception that was caught and by Spark's text for it; our own error comes back with it."""
    ours = error if isinstance(error, PipelineError) else recovered(text)
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


def recovered(text: str) -> PipelineError | None:
    """Our own error from a text that quotes a Python traceback; the last one named is the one that was raised."""
    kinds = {kind.__name__: kind for kind in _family(PipelineError)}
    named = [match for match in _OURS.finditer(text) if match[1] in kinds]
    if not named:
        return None
    found = named[-1]
    return kinds[found[1]](found[2], hint=found[3] or "")


def spark_text(error: BaseException) -> str:
    """Everything Spark says of an exception it raised on the driver, causes and Java frames included; for matching only."""
    told = [str(error)]
    origin: Any = getattr(error, "_origin", None) or getattr(error, "java_exception", None)
    if origin is not None:
        told.append(java_text(origin))
    return "\n".join(told)


def java_text(throwable: Any) -> str:
    """A Java throwable with its causes and frames."""
    from pyspark import SparkContext

    jvm: Any = SparkContext._jvm  # noqa: SLF001 - PySpark has no public way to a Java class
    return str(jvm.org.apache.spark.util.Utils.exceptionString(throwable))


def without_content(error: BaseException) -> str:
    """Name an unexpected exception by types, Spark's conditions and our frames: its message may quote a row (I14)."""
    condition = getattr(error, "getCondition", lambda: None)() or " < ".join(_java_names(error))
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    reader = _IN_READER.search(str(error))
    return (
        f"{type(error).__name__}{f' [{condition}]' if condition else ''}{f' at {where}' if where else ''}"
        f"{f', in a reader: {reader[1]}' if reader else ''}"
    )


def _java_names(error: BaseException) -> Iterator[str]:
    """Name what a Java exception is and was caused by: the condition at the head of its message, or else its class."""
    throwable: Any = getattr(error, "java_exception", None)
    for _ in range(_CAUSES):
        if throwable is None:
            return
        condition = _CONDITION.match(str(throwable.getMessage()))
        yield condition[1] if condition else str(throwable.getClass().getSimpleName())
        throwable = throwable.getCause()


def given_up(name: str, tries: int, error: BaseException, batch_id: int | None) -> StoppedError:
    """The error of a query that failed too often in the same place."""
    place = f"micro-batch {batch_id}" if batch_id is not None else "its start"
    return StoppedError(
        f"query {name} failed {tries} times at {place}: {without_content(error)}. Nothing is lost: it goes on where it"
        " stopped.",
        condition="QUERY_FAILED",
        hint="Mend the cause, then run `ragstream run CONFIG` again; `--log-level debug` shows Spark's own account, which may"
        " quote rows.",
    )


@contextlib.contextmanager
def ours(what: str, hint: str) -> Iterator[None]:
    """Raise whatever a command dies of as an error of ours, without what it may quote (I14); not a package that is missing."""
    try:
        yield
    except (PipelineError, ModuleNotFoundError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever it was, it is named by type and place
        _, known = kind_of(error, spark_text(error), "")
        told = f"{what} failed: {without_content(error)}."
        raise known or StoppedError(told, condition="COMMAND_FAILED", hint=hint) from None


def _family(kind: type[PipelineError]) -> set[type[PipelineError]]:
    return {kind}.union(*(_family(each) for each in kind.__subclasses__()))
