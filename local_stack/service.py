"""A real server as a child process: started, ready when its client's handshake works, paused or killed on demand."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from local_stack import ports, processes
from local_stack.ports import HOST
from schemas.errors import ConfigurationError, UnavailableError

Endpoint = Mapping[str, str]
"""What a client needs to reach a server: the keys of its part of `.ragstream/stack.json`."""

PYTHON_ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), "PYTHONUNBUFFERED": "1"}
"""Lets a server of ours import this repository from its own working directory."""
_STATE = "service.json"
_PASSED_ON = ("HOME", "LANG", "PATH", "TMPDIR", "TZ", "JAVA_HOME", "JAVA_TOOL_OPTIONS", "RAGSTREAM_CACHE")
"""The only variables of the caller's environment that a server gets."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service as the operating system sees it."""

    name: str
    up: bool
    pid: int | None
    ports: tuple[int, ...]
    resident_bytes: int
    """Resident memory of the process and its descendants."""


class Service(ABC):
    """One server in one folder.

    The folder has its data, its log and two small records (its ports, its process), so that any later process that opens
    the folder can pause, kill, restart or stop it. Starting a running server and stopping a stopped one do nothing.
    """

    part: ClassVar[str]
    """Its name on the command line and, by default, its `section`."""
    port_names: ClassVar[tuple[str, ...]] = ("client",)
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    start_timeout: ClassVar[float] = 60.0
    """Seconds until a server that does not answer is an error; long, since a shared machine can be slow."""
    stop_timeout: ClassVar[float] = 10.0

    def __init__(self, directory: Path) -> None:
        """Open the service of this folder, which an earlier process may have started."""
        self.directory = directory.absolute()
        self._lock = threading.RLock()
        self._state: dict[str, str | int] = {}
        if (self.directory / _STATE).exists():
            self._state = json.loads((self.directory / _STATE).read_text())

    @property
    def section(self) -> str:
        """Key of the endpoint in `.ragstream/stack.json`."""
        return self.part

    @property
    @abstractmethod
    def endpoint(self) -> Endpoint:
        """Addresses and credentials for clients; the same while it is down."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command line that runs the server in the foreground."""

    @abstractmethod
    def handshake(self) -> None:
        """Make a request by the server's own client, once its port accepts connections; any exception means not ready."""

    def prepare(self) -> None:  # noqa: B027  most servers need nothing
        """Write the server's configuration; called before every start, so it keeps existing data."""

    def environment(self) -> dict[str, str]:
        """Return the server's variables beside `_PASSED_ON`."""
        return {}

    @property
    def url(self) -> str:
        """The http URL of its port."""
        return f"http://{HOST}:{self.port}"

    @property
    def name(self) -> str:
        """Name of the folder: by default the part's name."""
        return self.directory.name

    @property
    def log(self) -> Path:
        """File with the server's standard output and error."""
        return self.directory / "log"

    @property
    def port(self) -> int:
        """The clients' port; taken from the operating system before the first start."""
        return self.port_of(self.port_names[0])

    def port_of(self, name: str) -> int:
        """Return one of its ports."""
        with self._lock:
            if name not in self._state:
                self.save(**dict(zip(self.port_names, ports.free_ports(len(self.port_names)), strict=True)))
            return int(self._state[name])

    def forget_ports(self) -> None:
        """Take other ports from the operating system at the next start."""
        with self._lock:
            for name in self.port_names:
                self._state.pop(name, None)

    def save(self, **values: str | int) -> None:
        """Store values (ports, a generated password) for later processes, readable by this user only."""
        with self._lock:
            self._state.update(values)
            self.directory.mkdir(parents=True, exist_ok=True)
            write_private(self.directory / _STATE, json.dumps(self._state))

    def saved(self, name: str) -> str | None:
        """Return a stored value, or None."""
        value = self._state.get(name)
        return None if value is None else str(value)

    @property
    def data(self) -> Path:
        """Folder of the server's data."""
        return self.directory / "data"

    @contextmanager
    def new_data(self) -> Iterator[Path]:
        """A folder to fill, which becomes `data` when the block ends: `data` is whole or absent, whoever is killed meanwhile."""
        new = self.directory / f"data.{os.getpid()}.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        yield new
        new.rename(self.data)

    def run(self, command: Sequence[str], purpose: str, script: str = "") -> None:
        """Run a command that prepares the folder, marked as a process of this service, and wait for its end.

        `script` is its standard input.

        Raises:
            ConfigurationError: it failed; its output is in the log.
        """
        with self.log.open("ab") as log:
            environment = self._whole_environment() | {processes.MARK: str(self.directory)}
            done = subprocess.run(command, env=environment, input=script.encode(), stdout=log, stderr=log, check=False)
        if done.returncode:
            raise ConfigurationError(f"{self.name}: cannot {purpose}", hint=f"the output is in {self.log}")

    def start(self) -> Endpoint:
        """Start it and return once it answers.

        Raises:
            ConfigurationError: it ended by itself; before a first successful start, three times on other ports.
            UnavailableError: it did not answer within `start_timeout`, and was stopped.
        """
        with self._lock:
            fresh = processes.recorded(self.directory) is None
            for attempt in range(3):
                try:
                    return self._start_once()
                except ConfigurationError:
                    if not fresh or attempt == 2:
                        raise
                    self.forget_ports()  # most likely another process took one meanwhile
            raise AssertionError

    def _start_once(self) -> Endpoint:
        process = processes.recorded(self.directory)
        if process is None or not process.alive:
            self.directory.mkdir(parents=True, exist_ok=True)
            processes.end(processes.inside(self.directory), signal.SIGTERM, 1.0)  # what an interrupted start left
            self.port  # noqa: B018  the ports are recorded before the server can listen on them
            self.prepare()
            processes.launch(self.directory, self.command(), self._whole_environment(), self.log)
            process = processes.recorded(self.directory, timeout=5.0)
        until = time.monotonic() + self.start_timeout
        while process is not None and process.alive:
            try:
                if not ports.accepts(self.port):
                    raise ConnectionRefusedError  # noqa: TRY301  as a client would
                self.handshake()
            except Exception as error:  # a client may raise anything while its server starts
                if time.monotonic() > until:
                    self.stop()
                    raise UnavailableError(
                        f"{self.name} ran but did not answer within {self.start_timeout:.0f} s, and was stopped",
                        hint=f"its output is in {self.log}",
                    ) from error
                time.sleep(0.05)
            else:
                if process.alive:  # else another server answered on the port
                    return self.endpoint
        raise ConfigurationError(f"{self.name} ended while it was starting", hint=f"its output is in {self.log}")

    def stop(self) -> None:
        """End it by its stop signal, then by SIGKILL; returns when its processes are gone. Its data stays."""
        with self._lock:
            process = processes.recorded(self.directory)
            alive = process is not None and process.alive  # else only strays are left, which may ignore the stop signal
            processes.end(
                self._processes(), self.stop_signal if alive else signal.SIGTERM, self.stop_timeout if alive else 1.0
            )

    def kill(self) -> None:
        """End it and its children with SIGKILL, as a crash of the machine would; `start` brings it back."""
        with self._lock:
            tree = self._processes()
            for process in tree:
                process.send(signal.SIGKILL)
            processes.end(tree, signal.SIGKILL, 5.0)

    def pause(self) -> None:
        """Suspend it (SIGSTOP): connections stay open and nothing answers."""
        for process in self._processes():
            process.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume it after `pause`."""
        for process in reversed(self._processes()):
            process.send(signal.SIGCONT)

    def restart(self) -> Endpoint:
        """Stop and start it on the same port and data."""
        self.stop()
        return self.start()

    def remove(self) -> None:
        """Stop it and delete its folder."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
        self._state.clear()

    @property
    def status(self) -> ServiceStatus:
        """Its processes, ports and memory now."""
        process = processes.recorded(self.directory)
        up = process is not None and process.alive
        tree = process.tree() if process is not None and up else []
        return ServiceStatus(
            name=self.name,
            up=up,
            pid=process.pid if process is not None and up else None,
            ports=tuple(int(self._state[name]) for name in self.port_names if name in self._state),
            resident_bytes=sum(process.resident_bytes for process in tree),
        )

    def _whole_environment(self) -> dict[str, str]:
        return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | self.environment()

    def _processes(self) -> list[processes.Process]:
        """Every process of this service: the recorded one first, then its descendants, then strays of its folder."""
        process = processes.recorded(self.directory)
        tree = process.tree() if process is not None and process.alive else []
        return tree + [process for process in processes.inside(self.directory) if process not in tree]

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()


def program(name: str, hint: str) -> str:
    """Return the path of a required program.

    Raises:
        ConfigurationError: it is not on the PATH.
    """
    path = shutil.which(name)
    if path is None:
        raise ConfigurationError(f"The local stack needs the program {name}", condition="PART_NOT_INSTALLED", hint=hint)
    return path


def write_private(path: Path, text: str) -> None:
    """Replace the file in one step, readable by its owner only."""
    new = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    new.replace(path)
