"""What the brokers say about their topics, asked without Spark; the client is imported when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

TIMEOUT_MS = 5_000
"""How long the brokers may take to answer, in milliseconds."""
GONE_S = 5.0
"""How long no broker may know a topic or partition before it counts as deleted: one that starts knows none for a moment."""


class Topic(NamedTuple):
    """A topic as its broker knows it; the id changes when the topic is made again."""

    name: str
    topic_id: str
    partitions: int


def topics_of(
    bootstrap_servers: str, options: Mapping[str, str], is_wanted: Callable[[str], bool] = lambda _: True
) -> dict[str, Topic]:
    """List the cluster's topics that this user may see; of those whose names are not wanted the brokers are asked no more.

    Raises UnavailableError when no broker answers, ConfigurationError when they refuse this user.
    """
    from sources.kafka.admin import Question

    return {topic.name: topic for topic in Question(bootstrap_servers, options).topics(is_wanted)}


def ends_of(
    topics: Collection[Topic], bootstrap_servers: str, options: Mapping[str, str]
) -> dict[tuple[str, int], int]:
    """The offset after the last record of each partition that may be read; raises as `topics_of` does."""
    from sources.kafka.admin import Question

    return Question(bootstrap_servers, options).offsets(topics, ends=True)


def starts_of(
    topics: Collection[Topic], bootstrap_servers: str, options: Mapping[str, str]
) -> dict[tuple[str, int], int]:
    """The offset of the first record that each partition still holds; raises as `topics_of` does."""
    from sources.kafka.admin import Question

    return Question(bootstrap_servers, options).offsets(topics, ends=False)
