"""Topics and offsets, asked of the brokers without Spark; the client is imported when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sources.feeds import Partition

TIMEOUT_MS = 5_000
"""Deadline of the brokers' answers, in milliseconds."""
GONE_S = 5.0
"""How long no broker must know a topic or partition before it counts as deleted: a starting broker knows none at first."""


class Topic(NamedTuple):
    """A topic; its id changes when it is made again."""

    name: str
    topic_id: str
    partitions: int


def topics_of(
    bootstrap_servers: str, options: Mapping[str, str], is_wanted: Callable[[str], bool] = lambda _: True
) -> dict[str, Topic]:
    """The wanted topics of the cluster among those that this user may see, by name.

    Raises UnavailableError when no broker answers, ConfigurationError when they refuse this user.
    """
    from sources.kafka.admin import AdminRequests

    return {topic.name: topic for topic in AdminRequests(bootstrap_servers, options).topics(is_wanted)}


def ends_of(topics: Collection[Topic], bootstrap_servers: str, options: Mapping[str, str]) -> dict[Partition, int]:
    """By partition, the offset after the last record that may be read; raises as `topics_of` does."""
    from sources.kafka.admin import AdminRequests

    return AdminRequests(bootstrap_servers, options).offsets(topics, ends=True)


def starts_of(topics: Collection[Topic], bootstrap_servers: str, options: Mapping[str, str]) -> dict[Partition, int]:
    """By partition, the offset of the first record that it has; raises as `topics_of` does."""
    from sources.kafka.admin import AdminRequests

    return AdminRequests(bootstrap_servers, options).offsets(topics, ends=False)
