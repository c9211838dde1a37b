"""The model endpoint as a test sees it."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from local_stack.models.service import ModelService


class Endpoint:
    """Its address, its counters, its faults."""

    def __init__(self, service: ModelService) -> None:
        self.service = service
        self.url = service.endpoint["endpoint_url"]

    def counters(self) -> dict[str, Any]:
        return self._call("/counters", None)

    def faults(self, **faults: Any) -> None:
        self._call("/faults", faults)

    def reset(self) -> None:
        self.faults()
        self._call("/reset", {})

    def _call(self, path: str, body: object) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.url}{path}", data=data, timeout=10) as answer:  # noqa: S310 - loopback
            result: dict[str, Any] = json.load(answer)
            return result
