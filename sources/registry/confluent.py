"""A registry with Confluent's REST API ("Schema Registry API Reference"): schemas by id, and what it demands of new ones."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from schemas.errors import ConfigurationError, UnavailableError
from sources.registry.config import ConfluentRegistryConfig
from transforms.envelopes.registry import RegisteredSchema

_TIMEOUT_SECONDS = 5.0
_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_NOT_THERE = frozenset({40401, 40402, 40403, 40408})
"""The API's own codes beside status 404: no such subject, version or schema, or no level of a subject's own."""
_MOST_REFERENCES = 100


def fetch(config: ConfluentRegistryConfig, name: str) -> RegisteredSchema | None:
    """A schema with those that it refers to; None where there is none.

    Raises ConfigurationError where the registry refuses the request or is none, UnavailableError where it does not answer.
    """
    document = _ask(config, f"/schemas/ids/{quote(name, safe='')}")
    if document is None:
        return None
    references = tuple(_references(config, document, set()))
    return RegisteredSchema(str(document.get("schemaType") or "AVRO"), str(document["schema"]), references)


def compatibility(config: ConfluentRegistryConfig, subject: str) -> str:
    """The level of compatibility that a subject's next schema must have, its own or the registry's; raises as `fetch` does."""
    own = _ask(config, f"/config/{quote(subject, safe='')}?defaultToGlobal=true", "compatibilityLevel")
    general = own or _ask(config, "/config", "compatibilityLevel")
    return str((general or {}).get("compatibilityLevel", "NONE"))


def _references(
    config: ConfluentRegistryConfig, document: dict[str, Any], visited: set[tuple[str, int]]
) -> Iterator[str]:
    """The definitions that a schema refers to, those first that others name; one that is gone is left out."""
    for reference in document.get("references") or ():
        subject, version = str(reference["subject"]), int(reference["version"])
        if (subject, version) in visited or len(visited) >= _MOST_REFERENCES:
            continue
        visited.add((subject, version))
        referred = _ask(config, f"/subjects/{quote(subject, safe='')}/versions/{version}")
        if referred is not None:
            yield from _references(config, referred, visited)
            yield str(referred["schema"])


def _ask(config: ConfluentRegistryConfig, path: str, member: str = "schema") -> dict[str, Any] | None:
    """The document at a path, which has this member; None where there is none."""
    address = urlsplit(config.url)
    headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
    if config.username is not None and config.password is not None:
        pair = f"{config.username}:{config.password.get_secret_value()}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    connection = _connection(address)
    try:
        connection.request("GET", address.path.rstrip("/") + path, headers=headers)
        response = connection.getresponse()
        status, body = response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise _unavailable(type(error).__name__) from None
    finally:
        connection.close()
    return _document(status, body, member)


def _connection(address: SplitResult) -> http.client.HTTPConnection:
    host = address.netloc.rpartition("@")[2]
    if address.scheme == "https":
        return http.client.HTTPSConnection(host, timeout=_TIMEOUT_SECONDS, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, timeout=_TIMEOUT_SECONDS)


def _document(status: int, body: bytes, member: str) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if status == HTTPStatus.OK and isinstance(document, dict) and member in document:
        return document
    if status == HTTPStatus.NOT_FOUND and isinstance(document, dict) and document.get("error_code") in _NOT_THERE:
        return None
    if status in _REFUSED:
        raise ConfigurationError(
            f"registry: the schema registry refuses the request (status {status})",
            condition="REGISTRY_REFUSES",
            hint="check `registry.username` and `registry.password`, and that the user may read schemas",
        )
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
        raise _unavailable(f"status {status}")
    raise ConfigurationError(
        f"registry: what answers at `registry.url` is no schema registry (status {status})",
        condition="REGISTRY_UNKNOWN",
        hint="name the address before /schemas and /subjects; for Apicurio it ends in /apis/ccompat/v7",
    )


def _unavailable(reason: str) -> UnavailableError:
    return UnavailableError(
        f"registry: the schema registry does not answer ({reason})",
        hint="check `registry.url`, and the network route from here to the registry",
    )
