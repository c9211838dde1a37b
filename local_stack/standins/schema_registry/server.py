"""A stand-in for Confluent's Schema Registry: a child process with the part of its REST API that serializers and readers use.

It proves our client's requests, errors and retries over the wire. It parses no schema, checks no compatibility, and has one
user. Confluent's own is on no package registry.
"""

from __future__ import annotations

import http.client
import sys
from collections.abc import Mapping
from typing import Any

from local_stack.servers.connect import request_json
from local_stack.service import PYTHON_ENVIRONMENT, Endpoint, Service
from schemas.errors import UnavailableError

USERNAME, PASSWORD = "reader", "local"


class SchemaRegistry(Service):
    """One registry. What was registered is there again after `kill` and `start`."""

    part = "schema-registry"

    @property
    def endpoint(self) -> Endpoint:
        """`url`, `username`, `password`."""
        return {"url": self.url, "username": USERNAME, "password": PASSWORD}

    def command(self) -> list[str]:
        """Run it in the foreground, with this interpreter."""
        store = self.directory / "schemas.json"
        module = "local_stack.standins.schema_registry.api"
        return [sys.executable, "-m", module, "--port", str(self.port), "--store", str(store)]

    def environment(self) -> dict[str, str]:
        """Let it import this package."""
        return PYTHON_ENVIRONMENT

    def handshake(self) -> None:
        """Request the kinds of schemas, which needs no user."""
        status, _ = request_json(self.url, "GET", "/schemas/types", timeout=5)
        if status != http.client.OK:
            raise UnavailableError(f"{self.name} does not answer yet")

    def register(self, subject: str, schema: Mapping[str, Any]) -> int:
        """Register a schema (`schema`, `schemaType`, `references`) under a subject, and return its id."""
        status, registered = request_json(self.url, "POST", f"/subjects/{subject}/versions", schema)
        if status != http.client.OK:
            raise UnavailableError(f"{self.name} answers {status}")
        return int(registered["id"])
