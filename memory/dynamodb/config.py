"""The configuration of a memory in DynamoDB; it needs no client."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from memory.config import MemorySettings
from schemas.aws import AwsAccess


class DynamoDBMemoryConfig(MemorySettings, AwsAccess):
    """Conversations and profiles in one table of Amazon DynamoDB."""

    type: Literal["dynamodb"]
    table: str = Field(pattern=r"^[A-Za-z0-9_.-]{3,255}$")
    """The table; `ragstream check` creates it, on demand and with its TTL attribute, where it has the right to."""
    region: str = "us-east-1"
