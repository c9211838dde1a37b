"""The ids of the topics that a job's offsets belong to, in one small file beside its checkpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from schemas.errors import SourceGoneError
from sources.checkpoint_files import CheckpointFiles
from sources.kafka import broker
from sources.kafka.broker import Topic, starts_of
from sources.kafka.config import KafkaSourceConfig, is_selected
from sources.kafka.offsets import align
from sources.kafka.source import selected_topics, topics_there
from sources.loss import restart_hint

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FILE_NAME = "source-identity.json"
_PAUSE_S = 0.5
"""Between two requests for a topic that no broker knows."""


def confirm_topics(spark: SparkSession, config: KafkaSourceConfig, checkpoint: str) -> None:
    """Compare the topics with those of the checkpoint, then write their ids.

    Run before a query starts; running it twice changes nothing. Raises SourceGoneError when one was deleted or made again:
    its offsets are those of other records now. A topic that the configuration names no more is dropped; a new one begins
    with its first record.
    """
    files = CheckpointFiles(spark, checkpoint)
    known_ids: dict[str, str] = json.loads(files.read(FILE_NAME) or '{"topics": {}}')["topics"]
    topics = selected_topics(config, unchanged_topics(config, known_ids, checkpoint))

    def starts(added: Collection[str]) -> dict[str, dict[str, int]]:
        at: dict[str, dict[str, int]] = {name: {} for name in added}
        first = starts_of([topics[name] for name in added], config.bootstrap_servers, config.options)
        for partition, offset in first.items():
            name, _, number = partition.rpartition("/")
            at[name][number] = offset
        return at

    ids = {name: topic.topic_id for name, topic in topics.items()}
    if ids != known_ids:
        align(spark, checkpoint, topics, starts)
        files.write(FILE_NAME, json.dumps({"topics": ids}, sort_keys=True))


def unchanged_topics(
    config: KafkaSourceConfig,
    known_ids: Mapping[str, str],
    checkpoint: str,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Topic]:
    """The topics that the configuration names, once they agree with the known ids by name.

    Raises SourceGoneError when a known one has another id, or no broker knows it for GONE_S; else as `topics_of`.
    """
    ids = {name: topic_id for name, topic_id in known_ids.items() if is_selected(config, name)}
    until = clock() + broker.GONE_S
    while ids.keys() - (topics := topics_there(config)).keys() and clock() < until:
        time.sleep(_PAUSE_S)
    gone = sorted(ids.keys() - topics.keys())
    again = sorted(name for name in ids.keys() & topics.keys() if topics[name].topic_id != ids[name])
    if not gone and not again:
        return topics
    what = [f"topic {name} is gone" for name in gone] + [f"topic {name} was made again" for name in again]
    raise SourceGoneError(
        f"source {config.name!r}: {'; '.join(what)}: what it held and this job had not read yet is lost.",
        condition="SOURCE_TOPIC_CHANGED",
        hint=restart_hint(checkpoint),
    )
