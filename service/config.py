"""The `serve` section of a pipeline's configuration; it imports no server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field, model_validator

from schemas.durations import Duration
from schemas.model import StrictModel
from schemas.transport import EncryptedPart, is_this_machine, weakness
from service.callers import CallersConfig
from service.callers.none import NoSignInConfig


class LimitsConfig(StrictModel):
    """What one process of the service takes on. Beyond it a request is refused, with the time to wait where that helps."""

    requests_per_minute: int = Field(default=240, ge=1)
    """Of one caller, on average."""
    burst: int = Field(default=60, ge=1)
    """Requests of one caller at once, after a pause."""
    concurrent: int = Field(default=64, ge=1, le=1000)
    """Searches, answers and other reads in progress: a thread each."""
    concurrent_per_caller: int = Field(default=16, ge=1)
    """Of one caller."""
    watches: int = Field(default=1000, ge=1)
    """Open streams of `/v1/watch`."""
    watches_per_caller: int = Field(default=20, ge=1)
    """Of one caller."""
    watch_for: Duration = 3600.0
    """How long a stream of `/v1/watch` stays open; a client opens the next one."""
    connections: int = Field(default=2000, ge=1)
    """Open connections of clients."""
    body_bytes: int = Field(default=1_048_576, ge=1024)
    """Of a request's body."""
    header_timeout: Duration = 10.0
    """For a client to send the head of a request."""
    body_timeout: Duration = 10.0
    """For a client to send the body of a request."""
    send_timeout: Duration = 20.0
    """For a client to take what is sent to it, an event at a time."""
    request_timeout: Duration = 60.0
    """For an answer, from the request's arrival to its last event."""
    stop_timeout: Duration = 20.0
    """For requests in progress to end after SIGTERM."""


class ServeConfig(EncryptedPart):
    """Where the service listens, who may use it, and how much."""

    host: str = "127.0.0.1"
    """The address to listen at; 0.0.0.0 for all."""
    port: int = Field(default=8080, ge=0, le=65535)
    """The port to listen at; 0 for any that is free."""
    certificate: str | None = None
    """A PEM file with the server's certificate, for TLS. Needed beyond this machine, unless `allow_plaintext` is said, as
    behind a load balancer that ends TLS."""
    key: str | None = None
    """A PEM file with the certificate's key, if it is not in the same file."""
    callers: CallersConfig = NoSignInConfig()
    """Who may use it."""
    hosts: tuple[str, ...] = ()
    """Names that clients reach the service by, beside loopback ones; a request for another one is refused. Without a sign-in that
    keeps pages of other sites out (DNS rebinding); with one, no names here means any."""
    connections: Annotated[int, Field(ge=1, le=200)] = 8
    """Connections to the store at most."""
    open_metrics: bool = False
    """Answer /metrics without a sign-in."""
    limits: LimitsConfig = LimitsConfig()
    """What one process takes on."""

    @model_validator(mode="after")
    def _strangers_sign_in(self) -> Self:
        if isinstance(self.callers, NoSignInConfig) and not is_loopback(self.host):
            raise ValueError(
                "without a sign-in the service is for this machine alone: set `host` to 127.0.0.1, or `callers` to another type"
            )
        if self.key is not None and self.certificate is None:
            raise ValueError("`key` belongs to a `certificate`, and there is none")
        return self

    def weaknesses(self) -> Iterator[str]:
        """The weakness of keys, questions and answers that travel to other machines without TLS."""
        if not is_loopback(self.host) and self.certificate is None:
            yield weakness("host", "name a `certificate`")


def is_loopback(host: str) -> bool:
    """Whether what listens at this address is reached from this machine alone."""
    return is_this_machine(host) and not host.startswith(("/", "@", "%"))
