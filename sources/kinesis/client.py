"""The calls to Kinesis, and the translation of their errors.

Used by the driver, by the executors and by `check`; picklable until the first call.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

from schemas.errors import ConfigurationError, SourceGoneError, UnavailableError
from sources.kinesis.config import Access
from sources.kinesis.offsets import Identity, Mark, Shard
from sources.kinesis.records import RawRecord
from sources.loss import restart_hint

MAX_RECORDS = 10_000
"""Most records GetRecords returns (Kinesis API reference)."""

_CONNECTIONS = 256
"""Most connections that stay open; a shard's thread uses one at a time."""
_THROTTLED = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "LimitExceededException",
        "KMSThrottlingException",
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_UNAVAILABLE = frozenset({"InternalFailure", "InternalFailureException", "InternalServerError", "ServiceUnavailable"})


class ThrottledError(UnavailableError):
    """Kinesis asks to be called less often."""


class IteratorError(UnavailableError):
    """An iterator is too old or unknown; its position gives a new one."""


class InUseError(UnavailableError):
    """The stream is being created, changed or deleted, or a consumer has another subscription to the shard."""


class Summary(NamedTuple):
    """A stream's description."""

    identity: Identity
    status: str
    retention_ms: int
    distribution: str


class Page(NamedTuple):
    """The answer of one GetRecords."""

    records: list[RawRecord]
    next_iterator: str | None
    """None at the end of a closed shard; of a page that was pushed, the sequence number after which the next begins."""
    behind_ms: int
    """Age of the last record returned relative to the shard's tip; 0 when there is nothing more."""


class Stream:
    """One Kinesis stream. Every call raises ThrottledError, UnavailableError, SourceGoneError or ConfigurationError."""

    def __init__(self, access: Access) -> None:
        """Keep how to reach it; nothing is opened before the first call."""
        self.access = access
        self._opening = threading.Lock()
        self._opened: Any = None
        self._closed = False

    def __reduce__(self) -> tuple[type[Stream], tuple[Access]]:
        """Travel without the open client."""
        return Stream, (self.access,)

    @property
    def client(self) -> Any:
        """The client of all threads: opening one takes 50 ms, and each has connections of its own."""
        with self._opening:
            if self._closed:
                raise UnavailableError(f"the connections to stream {self.access.stream} are closed.")
            if self._opened is None:
                self._opened = self._connect()
            return self._opened

    def close(self) -> None:
        """Close the client's connections; a later call raises UnavailableError."""
        with self._opening:
            self._closed = True
            if self._opened is not None:
                self._opened.close()

    def _connect(self) -> Any:
        import boto3
        from botocore.config import Config

        # Callers retry: they know whether to wait, to renew an iterator or to give up.
        config = Config(
            connect_timeout=5,
            read_timeout=20,
            max_pool_connections=_CONNECTIONS,
            retries={"total_max_attempts": 1, "mode": "standard"},
        )
        access = self.access
        session = boto3.session.Session(
            aws_access_key_id=access.access_key, aws_secret_access_key=access.secret_key, region_name=access.region
        )
        return session.client("kinesis", endpoint_url=access.endpoint_url, config=config)

    def summary(self) -> Summary:
        """Describe the stream."""
        with self.translating("DescribeStreamSummary"):
            stream = self.client.describe_stream_summary(StreamName=self.access.stream)["StreamDescriptionSummary"]
        identity = Identity(stream["StreamARN"], _ms(stream["StreamCreationTimestamp"]))
        distribution = stream.get("RecordDistributionStrategy", "USER_PARTITION_KEY")
        return Summary(identity, stream["StreamStatus"], int(stream["RetentionPeriodHours"]) * 3_600_000, distribution)

    def shards(self) -> dict[str, Shard]:
        """List the shards that have records, open and closed."""
        listed: dict[str, Shard] = {}
        request: Mapping[str, str] = {"StreamName": self.access.stream}
        while request:
            with self.translating("ListShards"):
                answer = self.client.list_shards(**request)
            for entry in answer["Shards"]:
                parents = (entry.get("ParentShardId"), entry.get("AdjacentParentShardId"))
                listed[entry["ShardId"]] = Shard(entry["ShardId"], tuple(parent for parent in parents if parent))
            request = {"NextToken": answer["NextToken"]} if answer.get("NextToken") else {}
        return listed

    def iterator(self, shard_id: str, mark: Mark, *, including: bool = False) -> str:
        """Get an iterator after the mark, or at its very record when `including`."""
        position = starting_position(mark, including=including)
        request = {"ShardIteratorType": position.pop("Type"), **position}
        if "SequenceNumber" in request:
            request["StartingSequenceNumber"] = request.pop("SequenceNumber")
        with self.translating("GetShardIterator", shard_id):
            answer = self.client.get_shard_iterator(StreamName=self.access.stream, ShardId=shard_id, **request)
        return str(answer["ShardIterator"])

    def fetch(self, shard_id: str, iterator: str, limit: int = MAX_RECORDS) -> Page:
        """Read the next records; also raises IteratorError when the iterator has to be renewed."""
        with self.translating("GetRecords", shard_id):
            answer = self.client.get_records(ShardIterator=iterator, Limit=limit)
        return Page(
            raw_records(answer["Records"]), answer.get("NextShardIterator"), int(answer.get("MillisBehindLatest") or 0)
        )

    def gone(self, what: str) -> SourceGoneError:
        """Build the error for records, a shard or a stream that vanished."""
        hint = restart_hint(self.access.checkpoint or "the job's folder under `checkpoint`")
        return SourceGoneError(
            f"Kinesis stream {self.access.stream}: {what}.", condition="SOURCE_STREAM_GONE", hint=hint
        )

    @contextmanager
    def translating(self, operation: str, shard_id: str = "") -> Iterator[None]:
        """Translate the client's errors into ours."""
        from botocore import exceptions
        from botocore.parsers import ResponseParserError

        where = f"{operation} on stream {self.access.stream}" + (f", {shard_id}" if shard_id else "")
        try:
            yield
        except exceptions.ClientError as error:
            raise self._refusal(error, where, operation, shard_id) from None
        except (exceptions.CredentialRetrievalError, exceptions.MetadataRetrievalError) as error:
            # The keys of a role are renewed while it reads.
            raise UnavailableError(f"{where}: AWS gives no credentials now ({type(error).__name__}).") from None
        except (exceptions.HTTPClientError, exceptions.ConnectionError, ResponseParserError) as error:
            raise UnavailableError(f"{where}: Kinesis does not answer ({type(error).__name__}).") from None
        except exceptions.BotoCoreError as error:
            raise ConfigurationError(
                f"{where}: {type(error).__name__}.",
                condition="SOURCE_KINESIS_CLIENT",
                hint="Set `region` under `source`, and give the job a role or keys that may read the stream.",
            ) from None

    def _refusal(self, error: Any, where: str, operation: str, shard_id: str) -> Exception:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
        if code in _THROTTLED:
            return ThrottledError(f"{where}: throttled ({code}).")
        if code == "ResourceInUseException":
            return InUseError(f"{where}: in use ({code}).")
        if code in _UNAVAILABLE or status >= 500:
            return UnavailableError(f"{where}: Kinesis failed ({code or status}).")
        if code == "ExpiredIteratorException" or (code == "InvalidArgumentException" and operation == "GetRecords"):
            return IteratorError(f"{where}: the iterator has expired.")
        if code == "ResourceNotFoundException":
            return self.gone(f"{shard_id or 'the stream'} no longer exists; what was not read yet is lost")
        if code == "InvalidArgumentException" and operation in {"GetShardIterator", "SubscribeToShard"}:
            return self.gone(
                f"{shard_id} does not know the position that the checkpoint holds; what followed it is lost"
            )
        return ConfigurationError(
            f"{where}: refused ({code}).",
            condition="SOURCE_KINESIS_REFUSED",
            hint="The job needs kinesis:DescribeStreamSummary, ListShards, GetShardIterator and GetRecords on the stream; with"
            " `consumer` also RegisterStreamConsumer, DescribeStreamConsumer and SubscribeToShard on its consumer.",
        )


def starting_position(mark: Mark, *, continuation: str = "", including: bool = False) -> dict[str, Any]:
    """A start of reading, as SubscribeToShard's StartingPosition.

    After the sequence number `continuation` or the mark, or at the mark's very record when `including`.
    """
    if after := continuation or mark.after:
        return {"Type": "AT_SEQUENCE_NUMBER" if including else "AFTER_SEQUENCE_NUMBER", "SequenceNumber": after}
    if mark.origin_ms is not None:
        return {"Type": "AT_TIMESTAMP", "Timestamp": datetime.fromtimestamp(mark.origin_ms / 1000, UTC)}
    return {"Type": "TRIM_HORIZON"}


def raw_records(listed: Iterable[Mapping[str, Any]]) -> list[RawRecord]:
    """Records of an answer of the API."""
    return [
        RawRecord(r["SequenceNumber"], r.get("PartitionKey", ""), r["Data"], _ms(r["ApproximateArrivalTimestamp"]))
        for r in listed
    ]


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
