"""The configuration of a connection to a service that runs models; it needs no client."""

from __future__ import annotations

from pydantic import Field

from schemas.aws import AwsAccess


class AwsConnection(AwsAccess):
    """Access to a service that runs models, and how long to wait for it."""

    region: str = "us-east-1"
    connect_timeout_seconds: float = Field(default=5, gt=0)
    read_timeout_seconds: float = Field(default=60, gt=0)
