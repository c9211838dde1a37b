"""The requests of the schema registry's stand-in, as Confluent documents them ("Schema Registry API Reference")."""

from __future__ import annotations

import argparse
import base64
import json
import re
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from local_stack.ports import HOST
from local_stack.service import write_private
from local_stack.standins.schema_registry.server import PASSWORD, USERNAME

_BASIC = f"Basic {base64.b64encode(f'{USERNAME}:{PASSWORD}'.encode()).decode()}"
_BY_ID = re.compile(r"/schemas/ids/(\d+)")
_VERSIONS = re.compile(r"/subjects/([^/]+)/versions")
_BY_VERSION = re.compile(r"/subjects/([^/]+)/versions/(\d+)")
_LEVEL = re.compile(r"/config(?:/([^/]+))?")
_NO_SUCH_VERSION, _NO_SUCH_SCHEMA = 40402, 40403


class Schemas:
    """What was registered, kept in a file; the same schema has one id in all subjects."""

    def __init__(self, store: Path) -> None:
        """Read what an earlier process kept."""
        self._store, self._lock = store, threading.Lock()
        self.levels: dict[str | None, str] = {None: "BACKWARD"}
        """Levels of compatibility by subject, kept while it runs; None is the registry's own. No schema is refused by them."""
        self._registered: dict[str, Any] = (
            json.loads(store.read_text()) if store.exists() else {"schemas": [], "subjects": {}}
        )

    def register(self, subject: str, schema: dict[str, Any]) -> int:
        """The id of a schema, which may be registered already."""
        entry = {name: schema[name] for name in ("schema", "schemaType", "references") if name in schema}
        with self._lock:
            schemas, versions = self._registered["schemas"], self._registered["subjects"].setdefault(subject, [])
            if entry not in schemas:
                schemas.append(entry)
            number = schemas.index(entry) + 1
            if number not in versions:
                versions.append(number)
            write_private(self._store, json.dumps(self._registered))
            return int(number)

    def by_id(self, number: int) -> dict[str, Any] | None:
        """A schema; None where there is none."""
        schemas = self._registered["schemas"]
        return dict(schemas[number - 1]) if 1 <= number <= len(schemas) else None

    def by_version(self, subject: str, version: int) -> dict[str, Any] | None:
        """A subject's version; None where there is none."""
        versions = self._registered["subjects"].get(subject, [])
        if not 1 <= version <= len(versions):
            return None
        number = versions[version - 1]
        return {"subject": subject, "version": version, "id": number, **self._registered["schemas"][number - 1]}


class Registry(ThreadingHTTPServer):
    """The server over registered schemas."""

    def __init__(self, port: int, schemas: Schemas) -> None:
        """Listen at a port of this machine."""
        super().__init__((HOST, port), Handler)
        self.schemas = schemas


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    server: Registry
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Kinds of schemas, a schema by its id, a subject's version, and its level of compatibility."""
        path = urlsplit(self.path).path
        if path == "/schemas/types":
            return self._answer(HTTPStatus.OK, ["AVRO", "JSON", "PROTOBUF"])
        if self.headers.get("Authorization") != _BASIC:
            return self._answer(HTTPStatus.UNAUTHORIZED, {"error_code": 401, "message": "Unauthorized"})
        if match := _BY_ID.fullmatch(path):
            return self._answer_schema(self.server.schemas.by_id(int(match[1])), _NO_SUCH_SCHEMA)
        if match := _BY_VERSION.fullmatch(path):
            return self._answer_schema(self.server.schemas.by_version(match[1], int(match[2])), _NO_SUCH_VERSION)
        if match := _LEVEL.fullmatch(path):
            levels = self.server.schemas.levels
            return self._answer(HTTPStatus.OK, {"compatibilityLevel": levels.get(match[1], levels[None])})
        return self._answer(HTTPStatus.NOT_FOUND, {"error_code": 404, "message": "HTTP 404 Not Found"})

    def do_PUT(self) -> None:
        """Set the level of compatibility of a subject, or the registry's."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if match := _LEVEL.fullmatch(urlsplit(self.path).path):
            self.server.schemas.levels[match[1]] = body["compatibility"]
            return self._answer(HTTPStatus.OK, body)
        return self._answer(HTTPStatus.NOT_FOUND, {"error_code": 404, "message": "HTTP 404 Not Found"})

    def do_POST(self) -> None:
        """Register a schema under a subject."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if match := _VERSIONS.fullmatch(urlsplit(self.path).path):
            return self._answer(HTTPStatus.OK, {"id": self.server.schemas.register(match[1], body)})
        return self._answer(HTTPStatus.NOT_FOUND, {"error_code": 404, "message": "HTTP 404 Not Found"})

    def _answer_schema(self, schema: dict[str, Any] | None, missing: int) -> None:
        if schema is None:
            self._answer(HTTPStatus.NOT_FOUND, {"error_code": missing, "message": "not found"})
        else:
            self._answer(HTTPStatus.OK, schema)

    def _answer(self, status: HTTPStatus, document: Any) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def main() -> None:
    """Serve until the process is stopped."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--store", type=Path, required=True)
    options = parser.parse_args()
    Registry(options.port, Schemas(options.store)).serve_forever()


if __name__ == "__main__":
    main()
