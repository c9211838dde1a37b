"""The Kafka source: the record as it came, and a topic that was made again stops the job."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, Row, SparkSession

import sources
from local_stack.servers.kafka import Broker
from schemas.errors import ConfigurationError, SourceGoneError
from sources.kafka import broker
from sources.kafka import topic_identity as identity
from sources.kafka.broker import ends_of, topics_of
from sources.kafka.config import KafkaSourceConfig
from sources.kafka.source import BrokerProbe
from sources.loss import source_gone


@pytest.fixture(autouse=True)
def soon_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no broker knows is believed to be gone after a second."""
    monkeypatch.setattr(broker, "GONE_S", 1.0)


def config_for(broker: Broker, *topics: str) -> KafkaSourceConfig:
    servers = broker.endpoint["bootstrap_servers"]
    return KafkaSourceConfig(type="kafka", envelope="debezium", bootstrap_servers=servers, topics=list(topics))


def produce(broker: Broker, topic: str, *values: bytes | None) -> None:
    producer = broker.producer()
    for value in values:
        producer.produce(topic, value, b"k", headers=[("h", b"x")])
    assert producer.flush(30) == 0


def read(spark: SparkSession, config: KafkaSourceConfig, folder: Path, rows: list[Row] | None = None) -> list[Row]:
    """Run one job over what is there; `rows` has what it read also where it dies."""
    rows = [] if rows is None else rows

    def keep(frame: DataFrame, _: int) -> None:
        rows.extend(frame.collect())

    frame = sources.read_stream(spark, config, str(folder))
    writer = frame.writeStream.option("checkpointLocation", str(folder)).foreachBatch(keep)
    query = writer.trigger(availableNow=True).start()
    query.awaitTermination()
    return rows


def test_a_record_arrives_as_it_was_written_and_once(
    spark: SparkSession, kafka: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    topic = new_topic(1)
    config = config_for(kafka, topic)
    produce(kafka, topic, b'{"n": 1.10}', None)
    first, second = read(spark, config, tmp_path)
    assert (first.stream, first.partition, first.position, bytes(first.value)) == (topic, "0", "0", b'{"n": 1.10}')
    assert [(h.key, bytes(h.value)) for h in first.headers] == [("h", b"x")]
    assert (second.position, second.value) == ("1", None)
    produce(kafka, topic, b"3")
    assert [row.position for row in read(spark, config, tmp_path)] == ["2"]


def test_brokers_say_whether_a_reader_that_stays_has_reached_all_they_hold(
    kafka: Broker, new_topic: Callable[..., str]
) -> None:
    topic = new_topic(2)
    probe = BrokerProbe(config_for(kafka, topic))
    assert probe.caught_up_us(None) is None
    empty = probe.caught_up_us({"sources": [{"endOffset": "None"}]}) or {}
    assert (set(empty), all(empty.values())) == ({f"{topic}/0", f"{topic}/1"}, True), (
        "an empty topic holds nothing more"
    )
    produce(kafka, topic, b"1", b"2", b"3")  # of one key, so in one partition
    ends = {place.rpartition("/")[2]: end for place, end in ends_of_topic(kafka, topic).items()}
    began_us = time.time_ns() // 1000
    assert min((probe.caught_up_us(reached({topic: ends})) or {}).values()) >= began_us
    (busy,) = (f"{topic}/{number}" for number, end in ends.items() if end)
    behind = {number: max(0, end - 1) for number, end in ends.items()}
    for positions in (reached({topic: behind}), reached({})):
        caught_up = probe.caught_up_us(positions) or {}
        assert {place for place, at_us in caught_up.items() if not at_us} == {busy}, "the other one is empty"


def test_brokers_that_do_not_answer_say_nothing(kafka: Broker, new_topic: Callable[..., str]) -> None:
    config = config_for(kafka, new_topic(1)).model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    assert BrokerProbe(config).caught_up_us(reached({})) is None


def reached(offsets: dict[str, dict[str, int]]) -> dict[str, object]:
    """A progress report as PySpark gives it."""
    return {"sources": [{"endOffset": str(offsets)}]}


def ends_of_topic(broker: Broker, topic: str) -> dict[str, int]:
    servers = broker.endpoint["bootstrap_servers"]
    return ends_of([topics_of(servers, {})[topic]], servers, {})


def test_a_topic_that_is_gone_or_was_made_again_stops_the_job(
    spark: SparkSession, kafka: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    topic = new_topic(1)
    config = config_for(kafka, topic)
    produce(kafka, topic, b"1", b"2")
    assert len(read(spark, config, tmp_path)) == 2
    kafka.delete_topic(topic)
    with pytest.raises(SourceGoneError, match="is gone") as caught:
        read(spark, config, tmp_path)
    assert f"move {tmp_path} away" in str(caught.value)
    kafka.create_topic(topic, 1)
    produce(kafka, topic, b"1", b"2", b"3", b"4")
    with pytest.raises(SourceGoneError, match="was made again"):
        read(spark, config, tmp_path)
    (tmp_path / identity.FILE_NAME).unlink()
    assert [bytes(row.value) for row in read(spark, config, tmp_path)] == [b"3", b"4"]  # what Spark alone would do


def test_offsets_that_the_broker_no_longer_has_are_told_as_lost(
    spark: SparkSession, kafka: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    topic = new_topic(1)
    config = config_for(kafka, topic)
    produce(kafka, topic, b"1", b"2")
    read(spark, config, tmp_path)
    kafka.delete_topic(topic)
    kafka.create_topic(topic, 1)
    (tmp_path / identity.FILE_NAME).unlink()
    with pytest.raises(Exception, match="may have been lost") as caught:
        read(spark, config, tmp_path)
    gone = source_gone(caught.value, str(tmp_path))
    assert gone is not None
    assert "offset was changed from 2 to 0" in gone.message


def test_topics_come_and_go_and_only_what_was_chosen_is_left_out(
    spark: SparkSession, kafka: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    stays, goes, comes = new_topic(1), new_topic(1), new_topic(2)
    produce(kafka, stays, b"1")
    produce(kafka, goes, b"2")
    assert len(read(spark, config_for(kafka, stays, goes), tmp_path)) == 2
    produce(kafka, goes, b"3")
    produce(kafka, stays, b"4")
    produce(kafka, comes, *map(str.encode, "5678"))
    expire(kafka, comes)  # as its retention does: Spark alone would call that a loss
    (at,) = [number for number in range(2) if ends_of_topic(kafka, comes)[f"{comes}/{number}"]]
    produce(kafka, comes, b"9")
    rows = read(spark, config_for(kafka, stays, comes), tmp_path)
    assert sorted((row.stream, row.partition, bytes(row.value)) for row in rows) == sorted(
        [(stays, "0", b"4"), (comes, str(at), b"9")]
    )
    kafka.delete_topic(goes)
    assert read(spark, config_for(kafka, stays, comes), tmp_path) == []
    kafka.delete_topic(comes)
    with pytest.raises(SourceGoneError, match="is gone"):
        read(spark, config_for(kafka, stays, comes), tmp_path)


def test_batch_that_was_not_committed_is_run_again_with_topics_of_now(
    spark: SparkSession, kafka: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    stays, goes, comes = new_topic(1), new_topic(1), new_topic(1)
    for topic in (stays, goes, comes):
        produce(kafka, topic, b"1")
    read(spark, config_for(kafka, stays, goes), tmp_path)
    for topic in (stays, goes):
        produce(kafka, topic, b"2")
    assert len(read(spark, config_for(kafka, stays, goes), tmp_path)) == 2
    last = max(int(path.name) for path in (tmp_path / "commits").glob("[0-9]*"))
    for path in (tmp_path / f"commits/{last}", tmp_path / f"commits/.{last}.crc"):
        path.unlink()
    rows: list[Row] = []
    with pytest.raises(StreamingQueryException, match=r"scala\.Option\.get"):  # SPARK-55271, after the batch was done
        read(spark, config_for(kafka, stays, comes), tmp_path, rows)
    read(spark, config_for(kafka, stays, comes), tmp_path, rows)
    assert {(row.stream, bytes(row.value)) for row in rows} == {(stays, b"2"), (comes, b"1")}


def expire(broker: Broker, topic: str) -> None:
    """Delete what a topic holds."""
    for place, end in ends_of_topic(broker, topic).items():
        broker.expire(topic, int(place.rpartition("/")[2]), end)


def test_check_says_what_is_wrong(kafka: Broker, new_topic: Callable[..., str]) -> None:
    topic = new_topic(1)
    sources.check(config_for(kafka, topic))
    pattern = config_for(kafka, topic).model_copy(update={"topics": None, "topics_pattern": topic[:-1] + "."})
    sources.check(pattern)
    with pytest.raises(ConfigurationError, match="no topic nowhere"):
        sources.check(config_for(kafka, topic, "nowhere"))
    with pytest.raises(ConfigurationError, match="no topic matches"):
        sources.check(pattern.model_copy(update={"topics_pattern": "nowhere.*"}))
    with pytest.raises(ConfigurationError, match="does not answer"):
        sources.check(config_for(kafka, topic).model_copy(update={"bootstrap_servers": "127.0.0.1:1"}))


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"topics": ["a"], "topics_pattern": "b"},
        {"topics_pattern": "("},
        {"topics": ["a"], "options": {"subscribe": "b"}},
    ],
)
def test_a_source_that_contradicts_itself_is_refused(members: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        KafkaSourceConfig.model_validate(
            {"type": "kafka", "envelope": "dms", "bootstrap_servers": "127.0.0.1:1", **members}
        )


def test_options_are_never_shown() -> None:
    config = KafkaSourceConfig(
        type="kafka",
        envelope="dms",
        bootstrap_servers="127.0.0.1:1",
        topics=["t"],
        options={"kafka.sasl.jaas.config": "canary"},
    )
    assert "canary" not in repr(config)
