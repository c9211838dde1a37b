"""The local stack: starts its parts concurrently, writes their endpoints to a file, and ends them all."""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from local_stack import ports, processes
from local_stack.models.service import ModelService
from local_stack.servers.aws import KinesisLocal, Ministack, Moto
from local_stack.servers.connect import Connect
from local_stack.servers.kafka import Broker
from local_stack.servers.mariadb import MariaDB
from local_stack.servers.memorydb import MemoryDB
from local_stack.servers.mysql import MySQL
from local_stack.servers.opensearch import OpenSearch
from local_stack.servers.postgres import SourceDatabase, VectorStore
from local_stack.service import Service, ServiceStatus, write_private
from local_stack.standins.documentdb.server import DocumentDB
from local_stack.standins.redshift.server import Redshift
from local_stack.standins.schema_registry.server import SchemaRegistry
from schemas.errors import ConfigurationError

STATE_DIRECTORY = Path(".ragstream")
"""The stack's directory, in the working directory."""
DEFAULT_PARTS = ("postgres", "vectors", "kafka", "connect", "aws", "model")
"""What `up` starts when no parts are named."""

Progress = Callable[[ServiceStatus, float], None]
"""Called in the caller's thread when a part is ready: its status, and the seconds since `up` was called."""


class Stack:
    """The servers of one state directory, which any process may open.

    `up` and `down` may be repeated, and interrupted anywhere: a lock lets one run at a time, and the next one finds the
    processes that an interrupted one left.
    """

    def __init__(self, directory: Path = STATE_DIRECTORY) -> None:
        """Open a state directory; nothing is started."""
        self.directory = directory.absolute()
        self._services: dict[str, Service] = {}

    @property
    def endpoints_file(self) -> Path:
        """`stack.json`: the endpoints of the parts that are up."""
        return self.directory / "stack.json"

    @property
    def secrets_file(self) -> Path:
        """`secrets.json`: the values of `${secret:NAME}`."""
        return self.directory / "secrets.json"

    def service(self, part: str) -> Service:
        """Return one part, up or down.

        Raises:
            ConfigurationError: there is no such part.
        """
        if part not in self._services:
            if part not in _FACTORIES:
                message = f"There is no part {part!r} in the local stack"
                raise ConfigurationError(message, hint=f"parts: {', '.join(_FACTORIES)}")
            self._services[part] = _FACTORIES[part](self, self._run / part)
        return self._services[part]

    @property
    def broker(self) -> Broker:
        """The Kafka broker, up or down."""
        service = self.service("kafka")
        assert isinstance(service, Broker)  # noqa: S101  for the type checker: the table below says so
        return service

    @property
    def aws(self) -> Ministack:
        """The endpoint of many AWS services, up or down."""
        service = self.service("aws")
        assert isinstance(service, Ministack)  # noqa: S101  as above
        return service

    def up(self, parts: Sequence[str] = (), progress: Progress | None = None) -> dict[str, dict[str, str]]:
        """Start the parts that are not up, concurrently, and return the endpoints of all that are.

        Raises:
            PipelineError: a part did not start. The others stay up; `down` ends them.
        """
        with self._locked():
            services = [self.service(part) for part in _with_needed(parts or DEFAULT_PARTS)]
            for service in services:
                status = service.status
                if not status.up and not all(map(ports.is_free, status.ports)):
                    service.forget_ports()  # another process has taken one since
            self._start(services, progress)
            return self._publish()

    def down(self, parts: Sequence[str] = (), *, remove_data: bool = False) -> list[str]:
        """End the parts (default: all) and what a crash left of them; return the names of those that ran."""
        with self._locked():
            chosen = list(parts) or self._started_parts()
            services = [self.service(part) for part in chosen]
            running = {status.name: status.pid for status in (service.status for service in services) if status.pid}
            with ThreadPoolExecutor(max(len(services), 1)) as pool:
                list(pool.map(Service.remove if remove_data else Service.stop, services))
            if not parts:
                processes.end(processes.inside(self._run), signal.SIGTERM, 1.0)
                if remove_data:
                    shutil.rmtree(self._run, ignore_errors=True)
            processes.await_reaped(list(running.values()), 5.0)
            self._publish()
            return list(running)

    def remove(self) -> None:
        """End everything and delete the state directory itself."""
        self.down(remove_data=True)
        processes.end(processes.inside(self.directory), signal.SIGTERM, 1.0)
        shutil.rmtree(self.directory, ignore_errors=True)

    def status(self) -> list[ServiceStatus]:
        """Return every part that was ever started here, up or down."""
        return [self.service(part).status for part in self._started_parts()]

    def endpoints(self) -> dict[str, dict[str, str]]:
        """Return the endpoints of the parts that are up, as `stack.json` has them."""
        endpoints: dict[str, dict[str, str]] = {}
        for part in self._started_parts():
            service = self.service(part)
            substituted = part != service.section and service.section in endpoints  # `aws` precedes `kinesis`
            if service.status.up and not substituted:
                endpoints[service.section] = dict(service.endpoint)
        return endpoints

    @property
    def _run(self) -> Path:
        return self.directory / "run"

    def _started_parts(self) -> list[str]:
        return sorted(folder.parent.name for folder in self._run.glob("*/service.json"))

    def _start(self, services: Sequence[Service], progress: Progress | None) -> None:
        began = time.monotonic()
        failures: list[BaseException] = []
        with ThreadPoolExecutor(len(services)) as pool:
            waiting = {pool.submit(service.start): service for service in services}
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    service = waiting.pop(future)
                    error = future.exception()
                    if error is not None:
                        failures.append(error)
                    elif progress is not None:
                        progress(service.status, time.monotonic() - began)
        self._publish()
        if failures:
            raise failures[0]

    def _publish(self) -> dict[str, dict[str, str]]:
        endpoints = self.endpoints()
        named = {
            "source": ("postgres", "dsn"),
            "vectors": ("vectors", "dsn"),
            "warehouse_password": ("redshift", "password"),
        }
        secrets = {name: endpoints[part][key] for name, (part, key) in named.items() if part in endpoints}
        _replace(self.endpoints_file, endpoints)
        _replace(self.secrets_file, secrets)
        return endpoints

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # the kernel releases it however the holder ends
            yield


_FACTORIES: dict[str, Callable[[Stack, Path], Service]] = {
    "postgres": lambda _, folder: SourceDatabase(folder),
    "vectors": lambda _, folder: VectorStore(folder),
    "mariadb": lambda _, folder: MariaDB(folder),
    "mysql": lambda _, folder: MySQL(folder),
    "kafka": lambda _, folder: Broker(folder),
    "connect": lambda stack, folder: Connect(folder, stack.broker),
    "opensearch": lambda _, folder: OpenSearch(folder),
    "documentdb": lambda _, folder: DocumentDB(folder),
    "memorydb": lambda _, folder: MemoryDB(folder),
    "aws": lambda _, folder: Ministack(folder),
    "kinesis": lambda _, folder: KinesisLocal(folder),
    "model": lambda _, folder: ModelService(folder),
    "instant-model": lambda _, folder: ModelService(folder, mode="instant"),
    "redshift": lambda stack, folder: Redshift(folder, stack.aws),
    "glue": lambda _, folder: Moto(folder),
    "schema-registry": lambda _, folder: SchemaRegistry(folder),
}
_NEEDS = {"connect": ("kafka",), "redshift": ("aws",)}
"""The parts that a part depends on."""


def _with_needed(parts: Sequence[str]) -> list[str]:
    """Add the parts that these depend on."""
    return list(dict.fromkeys([*(need for part in parts for need in _NEEDS.get(part, ())), *parts]))


def _replace(path: Path, values: dict[str, Any]) -> None:
    if values:
        write_private(path, json.dumps(values, indent=2) + "\n")
    else:
        path.unlink(missing_ok=True)
