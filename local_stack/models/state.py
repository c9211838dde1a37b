"""What the routes of every wire format share: the models, the faults and the counters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from embeddings.onnx.embedder import Encoded
from embeddings.protocol import Vector
from local_stack.models.faults import Counters, Faults


class EndpointState(Protocol):
    """The endpoint, as a route sees it."""

    faults: Faults
    """Set now."""
    counters: Counters
    """Since the last reset."""

    async def strike(self, request: web.Request) -> None:
        """Inject the faults that are set."""

    async def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """The vectors of texts, counted; raises what one of them provokes."""

    def tokens(self, text: str) -> int:
        """Count a text's tokens."""

    def token_vectors(self, text: str) -> Vector:
        """The vectors of a text's tokens: tokens × dimensions."""
