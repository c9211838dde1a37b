"""Enhanced fan-out: Kinesis pushes a shard's records to a registered consumer, each with a throughput of its own.

A subscription lasts five minutes at most (SubscribeToShard, Kinesis API reference). It gives the same records as polling:
a shard without one is polled until there is one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any

from schemas.errors import ConfigurationError, SourceGoneError, UnavailableError
from sources.kinesis.client import InUseError, Page, Stream, raw_records, starting_position
from sources.kinesis.offsets import Mark

IN_USE_S = 6.0
"""After a refused subscription: of two within five seconds the second is refused, a later one takes the first one over."""
TAKEN_OVER_S = 30.0
"""After another reader took a subscription over: an orphaned reader has ended by then."""
_UNDER_WAY_MS = 1000
"""Longest way of an event, in milliseconds, from Kinesis to here."""
_AT_ONCE_S = 0.005
"""An event that is read sooner than this had come before the wait for it; when is not known."""

logger = logging.getLogger(__name__)

_subscribed: set[tuple[str, str, str]] = set()
"""Stream, consumer and shard of each subscription of this process: a second one would take the first one over."""
_subscribing = threading.Lock()


class Consumer:
    """A registered consumer of a stream, shared by the threads of a feed."""

    def __init__(self, stream: Stream, consumer: str) -> None:
        """Take its ARN, or its name: without a consumer of that name one is registered, and stays registered."""
        self._stream = stream
        self._consumer = consumer
        self._arn = consumer if consumer.startswith("arn:") else ""
        self._registering = threading.Lock()

    def check(self) -> None:
        """Raise ConfigurationError when there is no consumer of this ARN, or the job may not describe it."""
        client = self._stream.client
        with self._stream.translating("DescribeStreamConsumer"):
            if not self._arn:
                self._find()
                return
            try:
                client.describe_stream_consumer(ConsumerARN=self._arn)
            except client.exceptions.ResourceNotFoundException:
                raise ConfigurationError(
                    f"stream {self._stream.access.stream} has no consumer {self._arn}.",
                    condition="SOURCE_CONSUMER_MISSING",
                    hint="Register it (`aws kinesis register-stream-consumer`), or give `consumer` a name instead of an ARN:"
                    " the job then registers one.",
                ) from None

    def pages(self, shard_id: str, mark: Mark, continuation: str) -> Iterator[tuple[Page, int]]:
        """Yield each pushed page, and when the shard was known to have no later record (ms since the epoch, 0: unknown).

        Begins after the sequence number `continuation`, which the previous page named, or else after the mark. Ends with
        the subscription. Raises UnavailableError when there is none or it breaks off, InUseError when another one has the
        shard, ConfigurationError when it is refused.
        """
        with (
            self._alone(shard_id),
            self._translating(shard_id),
            closing(self._events(shard_id, mark, continuation)) as events,
        ):
            while True:
                began = time.monotonic()
                event = next(events, None)
                if event is None:
                    return
                records = raw_records(event["Records"])
                ended = bool(event.get("ChildShards"))
                waited = time.monotonic() - began >= _AT_ONCE_S
                known_ms = int(time.time() * 1000) - _UNDER_WAY_MS if waited else 0
                if records:
                    known_ms = max(known_ms, records[-1].arrival_ms)
                after = str(event.get("ContinuationSequenceNumber") or "")  # the last event of a closed shard has none
                yield Page(records, None if ended else after, int(event["MillisBehindLatest"])), known_ms
                if ended:
                    return

    def _events(self, shard_id: str, mark: Mark, continuation: str) -> Generator[dict[str, Any]]:
        position = starting_position(mark, continuation=continuation)
        answer = self._stream.client.subscribe_to_shard(
            ConsumerARN=self._registered(), ShardId=shard_id, StartingPosition=position
        )
        with closing(answer["EventStream"]) as stream:
            for event in stream:
                if "SubscribeToShardEvent" in event:
                    yield event["SubscribeToShardEvent"]

    def _registered(self) -> str:
        """The consumer's ARN; raises UnavailableError while it is being registered."""
        with self._registering:
            if not self._arn:
                self._arn = self._find() or self._register()
            return self._arn

    def _find(self) -> str:
        client, stream_arn = self._stream.client, self._stream.summary().identity.arn
        try:
            answer = client.describe_stream_consumer(StreamARN=stream_arn, ConsumerName=self._consumer)
        except client.exceptions.ResourceNotFoundException:
            return ""
        consumer = answer["ConsumerDescription"]
        if consumer["ConsumerStatus"] != "ACTIVE":
            raise UnavailableError(
                f"consumer {self._consumer} of {stream_arn} is {consumer['ConsumerStatus'].lower()}."
            )
        return str(consumer["ConsumerARN"])

    def _register(self) -> str:
        """Register it; if another reader registers it at the same time, the next attempt finds that one."""
        stream_arn = self._stream.summary().identity.arn
        answer = self._stream.client.register_stream_consumer(StreamARN=stream_arn, ConsumerName=self._consumer)
        consumer = answer["Consumer"]
        logger.info("kinesis: consumer %s of %s registered; it costs by the hour", self._consumer, stream_arn)
        if consumer["ConsumerStatus"] != "ACTIVE":
            raise UnavailableError(f"consumer {self._consumer} of {stream_arn} is being registered.")
        return str(consumer["ConsumerARN"])

    @contextmanager
    def _alone(self, shard_id: str) -> Iterator[None]:
        key = (self._stream.access.stream, self._consumer, shard_id)
        with _subscribing:
            if key in _subscribed:
                raise InUseError(f"{shard_id}: another feed of this process is subscribed.")
            _subscribed.add(key)
        try:
            yield
        finally:
            with _subscribing:
                _subscribed.discard(key)

    @contextmanager
    def _translating(self, shard_id: str) -> Iterator[None]:
        """Translate errors that only a subscription has to UnavailableError: polling goes on."""
        from botocore.eventstream import ParserError
        from urllib3.exceptions import HTTPError

        where = f"SubscribeToShard on stream {self._stream.access.stream}, {shard_id}"
        try:
            with self._stream.translating("SubscribeToShard", shard_id):
                yield
        except SourceGoneError as error:
            # Polling raises it for a shard that is gone; a consumer that is gone is registered again by its name.
            self._arn = self._consumer if self._consumer.startswith("arn:") else ""
            raise UnavailableError(f"{where}: {error.message}") from None
        except (HTTPError, OSError, ParserError) as error:
            raise UnavailableError(f"{where}: broke off ({type(error).__name__}).") from None
