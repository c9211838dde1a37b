"""A Connect worker's REST interface: connectors put there, and their settings read."""

from __future__ import annotations

import json
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from schemas.errors import ConfigurationError, UnavailableError
from sources.capture import binlog_server
from sources.capture.debezium import kept_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sources.capture.debezium import DebeziumCaptureConfig

_TIMEOUT_SECONDS = 90.0
_TRANSIENT = frozenset({404, 409, 500, 503})
"""Status codes of a worker that does not know the connector yet, is rebalancing, or is starting."""


def put_connector(config: DebeziumCaptureConfig, rendered: dict[str, Any]) -> list[str]:
    """Run the source's statements, put the connector, and return once it and its task run.

    What it has that is not rendered is kept, and named. Safe to repeat: the same configuration changes nothing. Raises
    ConfigurationError when the worker refuses it or does not answer, or a task fails.
    """
    if not config.connect_url:
        raise ConfigurationError(
            "capture: connect_url is needed to apply a connector.", condition="CAPTURE_CONNECT_URL"
        )
    if rendered["source_sql"]:
        _prepare_source(config, rendered["source_sql"])
    name, settings = rendered["connector"]["name"], rendered["connector"]["config"]
    url, until = f"{_connector_url(config.connect_url, name)}/config", time.monotonic() + _TIMEOUT_SECONDS
    kept = kept_settings(_ask("GET", url, None, until, missing={}), settings)
    put_settings(config.connect_url, name, settings | kept)
    return sorted(kept)


def put_settings(worker_url: str, name: str, settings: Mapping[str, str]) -> None:
    """Create or change a connector; returns once the worker reports these settings, and it and all its tasks run.

    Safe to repeat. For a moment after a worker took new settings, it reports those before. Raises ConfigurationError when the
    worker refuses them or does not answer, a task fails, or it does not run in time.
    """
    until = time.monotonic() + _TIMEOUT_SECONDS
    connector = _connector_url(worker_url, name)
    _ask("PUT", f"{connector}/config", settings, until)
    while time.monotonic() < until:
        status = _ask("GET", f"{connector}/status", None, until)
        states = [status.get("connector", {}).get("state"), *(task["state"] for task in status.get("tasks", []))]
        if "FAILED" in states:
            raise ConfigurationError(
                f"capture: the connector {name} failed.",
                condition="CONNECTOR_FAILED",
                hint=f"GET {connector}/status has the trace.",
            )
        is_running = len(states) > 1 and set(states) == {"RUNNING"}
        if is_running and settings.items() <= _ask("GET", f"{connector}/config", None, until).items():
            return
        time.sleep(0.1)
    raise ConfigurationError(f"capture: the connector {name} does not run after {_TIMEOUT_SECONDS:.0f} s.")


def connector_settings(config: DebeziumCaptureConfig, name: str) -> dict[str, str] | None:
    """The settings of a connector, secrets included; None where the worker does not know it.

    Raises UnavailableError when the worker does not answer, or not with settings.
    """
    try:
        request = Request(f"{_connector_url(config.connect_url or '', name)}/config")  # noqa: S310 - as configured
        with urlopen(request, timeout=10) as response:  # noqa: S310
            settings: dict[str, str] = json.loads(response.read())
            return settings
    except (URLError, TimeoutError, ConnectionError, ValueError) as error:
        if isinstance(error, HTTPError) and error.code == HTTPStatus.NOT_FOUND:
            return None
        raise UnavailableError(
            f"capture: the Connect worker at {config.connect_url} does not answer, so no connector could be compared",
            hint="check `capture.connect_url`, and the network route from here to the worker",
        ) from None


def _prepare_source(config: DebeziumCaptureConfig, statements: list[str]) -> None:
    if config.database != "postgresql":
        binlog_server.run(config, statements)
        return
    import psycopg

    try:
        with psycopg.connect(config.conninfo, autocommit=True, connect_timeout=5) as source:
            for statement in statements:
                source.execute(statement.encode())
    except psycopg.Error as error:
        raise ConfigurationError(
            f"capture: the source refuses a statement ({error.sqlstate}).",
            hint="Run what `ragstream capture` prints as its owner.",
        ) from None


def _connector_url(worker_url: str, name: str) -> str:
    return f"{worker_url.rstrip('/')}/connectors/{quote(name, safe='')}"


def _ask(
    method: str, url: str, body: Mapping[str, str] | None, until: float, *, missing: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Send a request to the worker, again until `until` while it answers `_TRANSIENT` or not at all.

    `missing` is returned where it knows no such connector; without it, that may change.
    """
    data = None if body is None else json.dumps(dict(body)).encode()
    while True:
        request = Request(url, data, {"Content-Type": "application/json"}, method=method)  # noqa: S310 - as configured
        try:
            with urlopen(request, timeout=30) as response:  # noqa: S310
                document: dict[str, Any] = json.loads(response.read() or b"{}")
                return document
        except HTTPError as error:
            if error.code == HTTPStatus.NOT_FOUND and missing is not None:
                return missing
            if error.code not in _TRANSIENT or time.monotonic() >= until:
                raise ConfigurationError(
                    f"capture: Connect answers {error.code} to {method} {url}.", condition="CONNECT_REFUSES",
                    hint="Its log says which setting it does not take.",
                ) from None  # fmt: skip
        except (URLError, TimeoutError, ConnectionError):
            if time.monotonic() > until:
                raise ConfigurationError(
                    f"capture: no Connect worker answers at {url}.",
                    condition="CONNECT_UNREACHABLE",
                    hint="Check capture.connect_url.",
                ) from None
        time.sleep(0.3)
