"""Conversations, profiles and feedback: a folder a store, one protocol, one contract suite.

Reading a configuration imports no client: `open_store` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Annotated, assert_never

from pydantic import Field

from memory.conversations import Conversations
from memory.documentdb.config import DocumentDBMemoryConfig
from memory.dynamodb.config import DynamoDBMemoryConfig
from memory.feedback import Feedback
from memory.memorydb.config import MemoryDBConfig
from memory.profiles import Profiles
from memory.protocol import MemoryStore

type MemoryConfig = Annotated[
    DocumentDBMemoryConfig | DynamoDBMemoryConfig | MemoryDBConfig, Field(discriminator="type")
]
"""The `memory` section of a pipeline's configuration."""


def open_store(config: MemoryConfig) -> MemoryStore:
    """The store a configuration describes; nothing is connected yet."""
    match config:
        case DynamoDBMemoryConfig():
            from memory.dynamodb.store import DynamoDBStore

            return DynamoDBStore(config)
        case DocumentDBMemoryConfig():
            from memory.documentdb.store import DocumentDBStore

            return DocumentDBStore(config)
        case MemoryDBConfig():
            from memory.memorydb.store import MemoryDBStore

            return MemoryDBStore(config)
        case _:
            assert_never(config)


@dataclass(frozen=True, slots=True)
class Memory:
    """The conversations, the profiles and the feedback of one store."""

    conversations: Conversations
    profiles: Profiles
    feedback: Feedback


@contextmanager
def opened(config: MemoryConfig, clock: Callable[[], float] = time.time) -> Iterator[Memory]:
    """Open a memory for a time; it connects on first use."""
    with closing(open_store(config)) as store:
        yield Memory(Conversations(store, config, clock), Profiles(store, config), Feedback(store, clock))
