"""The model endpoint (`local_stack.models.endpoint`) as a part of the stack."""

from __future__ import annotations

import http.client
import sys
from pathlib import Path
from typing import Literal

from local_stack.servers.connect import request_json
from local_stack.service import PYTHON_ENVIRONMENT, Endpoint, Service
from schemas.errors import UnavailableError


class ModelService(Service):
    """Bedrock's runtime over local models; its only state are faults and counters, which `start` resets."""

    part = "model"
    start_timeout = 120.0  # the first start builds the ONNX graph

    def __init__(self, directory: Path, mode: Literal["real", "instant"] | None = None) -> None:
        """Open the endpoint of this folder, over the real models or the instant ones (vectors without meaning)."""
        super().__init__(directory)
        if mode is not None:
            self.save(mode=mode)

    @property
    def endpoint(self) -> Endpoint:
        """`endpoint_url` for boto3's bedrock-runtime."""
        return {"endpoint_url": self.url}

    def command(self) -> list[str]:
        """Run it in the foreground, with this interpreter."""
        mode = self.saved("mode") or "real"
        return [sys.executable, "-m", "local_stack.models.endpoint", "--port", str(self.port), "--mode", mode]

    def environment(self) -> dict[str, str]:
        """Let it import this package."""
        return PYTHON_ENVIRONMENT

    def handshake(self) -> None:
        """Request its health."""
        status, _ = request_json(self.url, "GET", "/health", timeout=5)
        if status != http.client.OK:
            raise UnavailableError(f"{self.name} is not healthy yet")
