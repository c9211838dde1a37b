"""The calls this package makes to Kinesis, with its errors told apart.

Used by the driver, by the executors and by `check`; picklable until the first call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple

from schemas.errors import ConfigurationError, SourceGoneError, UnavailableError
from sources.kinesis_offsets import Identity, Mark, Shard
from sources.kinesis_records import RawRecord
from sources.loss import restart_hint

MAX_RECORDS = 10_000
"""Most records GetRecords returns (Kinesis API reference)."""

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
    """An iterator is too old or unknown; the position it stood for gives a new one."""


class Access(NamedTuple):
    """How to reach a stream; without keys boto3 finds its own (role, profile, environment)."""

    stream: str
    region: str | None = None
    endpoint_url: str | None = None
    access_key: str | None = None
    secret_key: str | None = None
    checkpoint: str = ""
    """Folder of the job's checkpoint, named in the hint when it is of no use any more."""

    def __repr__(self) -> str:
        """Name the stream alone: the others may be secrets."""
        return f"Access(stream={self.stream!r})"


class Summary(NamedTuple):
    """What the stream says about itself."""

    identity: Identity
    status: str
    retention_ms: int
    distribution: str


class Page(NamedTuple):
    """The answer of one GetRecords."""

    records: list[RawRecord]
    next_iterator: str | None
    """None at the end of a closed shard."""
    behind_ms: int
    """Age of the last record returned relative to the shard's tip; 0 when there is nothing more."""


class Stream:
    """One Kinesis stream. Every call raises ThrottledError, UnavailableError, SourceGoneError or ConfigurationError."""

    def __init__(self, access: Access) -> None:
        """Keep how to reach it; nothing is opened before the first call."""
        self.access = access

    def __reduce__(self) -> tuple[type[Stream], tuple[Access]]:
        """Travel without the open client."""
        return Stream, (self.access,)

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        # Retries are the callers': they know whether to wait, to renew an iterator or to give up.
        config = Config(
            connect_timeout=5,
            read_timeout=20,
            max_pool_connections=64,
            retries={"total_max_attempts": 1, "mode": "standard"},
        )
        access = self.access
        session = boto3.session.Session(
            aws_access_key_id=access.access_key, aws_secret_access_key=access.secret_key, region_name=access.region
        )
        return session.client("kinesis", endpoint_url=access.endpoint_url, config=config)

    def summary(self) -> Summary:
        """Ask what the stream is."""
        with self._translating("DescribeStreamSummary"):
            found = self._client.describe_stream_summary(StreamName=self.access.stream)["StreamDescriptionSummary"]
        identity = Identity(found["StreamARN"], _ms(found["StreamCreationTimestamp"]))
        retention_ms = int(found["RetentionPeriodHours"]) * 3_600_000
        return Summary(
            identity, found["StreamStatus"], retention_ms, found.get("RecordDistributionStrategy", "USER_PARTITION_KEY")
        )

    def shards(self) -> dict[str, Shard]:
        """List the shards that still hold records, open and closed."""
        listed: dict[str, Shard] = {}
        request: Mapping[str, str] = {"StreamName": self.access.stream}
        while request:
            with self._translating("ListShards"):
                answer = self._client.list_shards(**request)
            for entry in answer["Shards"]:
                parents = (entry.get("ParentShardId"), entry.get("AdjacentParentShardId"))
                listed[entry["ShardId"]] = Shard(entry["ShardId"], tuple(parent for parent in parents if parent))
            request = {"NextToken": answer["NextToken"]} if answer.get("NextToken") else {}
        return listed

    def iterator(self, shard_id: str, mark: Mark, *, including: bool = False) -> str:
        """Get an iterator after the mark, or at its very record when `including`."""
        position: dict[str, Any] = {"ShardIteratorType": "TRIM_HORIZON"}
        if mark.sequence:
            kind = "AT_SEQUENCE_NUMBER" if including else "AFTER_SEQUENCE_NUMBER"
            position = {"ShardIteratorType": kind, "StartingSequenceNumber": mark.sequence}
        elif mark.origin_ms is not None:
            moment = datetime.fromtimestamp(mark.origin_ms / 1000, UTC)
            position = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": moment}
        with self._translating("GetShardIterator", shard_id):
            answer = self._client.get_shard_iterator(StreamName=self.access.stream, ShardId=shard_id, **position)
        return str(answer["ShardIterator"])

    def fetch(self, shard_id: str, iterator: str, limit: int = MAX_RECORDS) -> Page:
        """Read the next records; also raises IteratorError when the iterator has to be renewed."""
        with self._translating("GetRecords", shard_id):
            answer = self._client.get_records(ShardIterator=iterator, Limit=limit)
        records = [
            RawRecord(r["SequenceNumber"], r.get("PartitionKey", ""), r["Data"], _ms(r["ApproximateArrivalTimestamp"]))
            for r in answer["Records"]
        ]
        return Page(records, answer.get("NextShardIterator"), int(answer.get("MillisBehindLatest") or 0))

    def gone(self, what: str) -> SourceGoneError:
        """Build the error for records, a shard or a stream that vanished."""
        hint = restart_hint(self.access.checkpoint or "the job's folder under `checkpoint`")
        return SourceGoneError(
            f"Kinesis stream {self.access.stream}: {what}.", condition="SOURCE_STREAM_GONE", hint=hint
        )

    @contextmanager
    def _translating(self, operation: str, shard_id: str = "") -> Iterator[None]:
        from botocore import exceptions
        from botocore.parsers import ResponseParserError

        where = f"{operation} on stream {self.access.stream}" + (f", {shard_id}" if shard_id else "")
        try:
            yield
        except exceptions.ClientError as error:
            raise self._refusal(error, where, operation, shard_id) from None
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
        if code in _UNAVAILABLE or status >= 500:
            return UnavailableError(f"{where}: Kinesis failed ({code or status}).")
        if code == "ExpiredIteratorException" or (code == "InvalidArgumentException" and operation == "GetRecords"):
            return IteratorError(f"{where}: the iterator has expired.")
        if code == "ResourceNotFoundException":
            return self.gone(f"{shard_id or 'the stream'} no longer exists; what was not read yet is lost")
        if code == "InvalidArgumentException" and operation == "GetShardIterator":
            return self.gone(
                f"{shard_id} does not know the position that the checkpoint holds; what followed it is lost"
            )
        return ConfigurationError(
            f"{where}: refused ({code}).",
            condition="SOURCE_KINESIS_REFUSED",
            hint="The job needs kinesis:DescribeStreamSummary, ListShards, GetShardIterator and GetRecords on the stream.",
        )


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
