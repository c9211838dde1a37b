"""A registry with Confluent's REST API ("Schema Registry API Reference"): a schema by its id, and those that it refers to."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

from schemas.errors import ConfigurationError, UnavailableError
from sources.registry.config import ConfluentRegistryConfig
from transforms.envelopes.registry import RegisteredSchema

_SECONDS = 5.0
_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_NOT_THERE = frozenset({40401, 40402, 40403})
"""The API's own codes beside status 404: no such subject, version or schema."""
_MOST_REFERENCES = 100


def fetch(config: ConfluentRegistryConfig, name: str) -> RegisteredSchema | None:
    """A schema with those that it refers to; None where there is none.

    Raises ConfigurationError where the registry refuses the request or is none, UnavailableError where it does not answer.
    """
    found = _ask(config, f"/schemas/ids/{quote(name, safe='')}")
    if found is None:
        return None
    references = dict(_references(config, found, set()))
    return RegisteredSchema(str(found.get("schemaType") or "AVRO"), str(found["schema"]), tuple(references.values()))


def _references(
    config: ConfluentRegistryConfig, found: dict[str, Any], seen: set[tuple[str, int]]
) -> Iterator[tuple[tuple[str, int], str]]:
    """The definitions that a schema refers to, those first that others name; one that is gone is left out."""
    for reference in found.get("references") or ():
        place = (str(reference["subject"]), int(reference["version"]))
        if place in seen or len(seen) >= _MOST_REFERENCES:
            continue
        seen.add(place)
        other = _ask(config, f"/subjects/{quote(place[0], safe='')}/versions/{place[1]}")
        if other is not None:
            yield from _references(config, other, seen)
            yield place, str(other["schema"])


def _ask(config: ConfluentRegistryConfig, path: str) -> dict[str, Any] | None:
    address = urlsplit(config.url)
    headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
    if config.username is not None and config.password is not None:
        pair = f"{config.username}:{config.password.get_secret_value()}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    connection = _connection(address.scheme, address.netloc)
    try:
        connection.request("GET", address.path.rstrip("/") + path, headers=headers)
        answer = connection.getresponse()
        status, body = answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise _away(type(error).__name__) from None
    finally:
        connection.close()
    return _document(status, body)


def _connection(scheme: str, place: str) -> http.client.HTTPConnection:
    host = place.rpartition("@")[2]
    if scheme == "https":
        return http.client.HTTPSConnection(host, timeout=_SECONDS, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, timeout=_SECONDS)


def _document(status: int, body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if status == HTTPStatus.OK and isinstance(document, dict) and "schema" in document:
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
        raise _away(f"status {status}")
    raise ConfigurationError(
        f"registry: what answers at `registry.url` is no schema registry (status {status})",
        condition="REGISTRY_UNKNOWN",
        hint="name the address before /schemas and /subjects; for Apicurio it ends in /apis/ccompat/v7",
    )


def _away(reason: str) -> UnavailableError:
    return UnavailableError(
        f"registry: the schema registry does not answer ({reason})",
        hint="check `registry.url`, and the network route from here to the registry",
    )
