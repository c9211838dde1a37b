"""Child processes that outlive their starter, and can still be found, identified and ended.

A process is identified by its pid, its start time and the boot, so that a recycled pid is never signalled. It writes that
record itself before it becomes the server, so a starter that is killed leaves no child unrecorded. Reads /proc: Linux only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "RAGSTREAM_RUN"
"""Environment variable that every process of the stack inherits; its value is the folder of its service."""

_PROC = Path("/proc")
_BOOT = _PROC / "sys/kernel/random/boot_id"
_RECORD = "process"
_LAUNCH = (  # $1 folder, then the command; the shell replaces itself by it, so pid and start time stay
    'cd "$1" || exit 127; shift; read -r stat < /proc/self/stat; read -r boot < /proc/sys/kernel/random/boot_id; '
    f'printf "%s\\n%s\\n" "$stat" "$boot" > {_RECORD}.new && mv {_RECORD}.new {_RECORD} && exec "$@"'
)


@dataclass(frozen=True, slots=True)
class Process:
    """One process, distinct from every later one with the same pid."""

    pid: int
    started: int
    """Clock ticks between the boot and the start of the process (field 22 of /proc/PID/stat)."""
    boot: str

    @property
    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        _reap(self.pid)
        return find(self.pid) == self

    @property
    def resident_bytes(self) -> int:
        """Resident memory of this process alone, 0 once it has ended."""
        try:
            pages = int((_PROC / str(self.pid) / "statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def command(self) -> str:
        """Its command line, words separated by spaces; empty once it has ended."""
        try:
            return (
                (_PROC / str(self.pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            )
        except OSError:
            return ""

    @property
    def parent(self) -> int:
        """The pid of its parent, 0 once it has ended."""
        fields = _stat(self.pid)
        return int(fields[1]) if fields else 0

    @property
    def descriptors(self) -> int:
        """Open file descriptors, 0 once it has ended."""
        try:
            return sum(1 for _ in (_PROC / str(self.pid) / "fd").iterdir())
        except OSError:
            return 0

    @property
    def threads(self) -> int:
        """Threads, 0 once it has ended."""
        fields = _stat(self.pid)
        return int(fields[17]) if fields else 0

    def send(self, number: signal.Signals) -> None:
        """Signal it, unless it has ended."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def tree(self) -> list[Process]:
        """Itself and all its descendants, parents first."""
        children: dict[int, list[int]] = {}
        for pid in _pids():
            fields = _stat(pid)
            if fields is not None:
                children.setdefault(int(fields[1]), []).append(pid)
        order = [self.pid]
        for pid in order:
            order.extend(children.get(pid, ()))
        return [process for process in map(find, order) if process is not None]


def launch(directory: Path, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
    """Start `command` in `directory` as the leader of a session of its own, output appended to `log`.

    It outlives the caller. `recorded(directory)` finds it, also when the caller dies before this returns.
    """
    (directory / _RECORD).unlink(missing_ok=True)
    shell = "/bin/sh"
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    os.posix_spawn(
        shell,
        [shell, "-c", _LAUNCH, shell, str(directory), *command],
        {**environment, MARK: str(directory)},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def recorded(directory: Path, timeout: float = 0.0) -> Process | None:
    """Return the process that `launch` started in this folder, dead or alive; waits `timeout` seconds for its record."""
    until = time.monotonic() + timeout
    while True:
        try:
            stat, boot = (directory / _RECORD).read_text().splitlines()
            return _parse(stat, boot)
        except (OSError, ValueError):
            if time.monotonic() >= until:
                return None
        time.sleep(0.005)


def find(pid: int) -> Process | None:
    """Return the process that has this pid now; None where there is none or only a zombie.

    One that was killed is a zombie before its other threads have ended, and they keep its ports and locks.
    """
    fields = _stat(pid)
    if fields is None or (fields[0] in "ZX" and int(fields[17]) <= 1):
        return None
    return Process(pid, int(fields[19]), _BOOT.read_text().strip())


def in_session(leader: int) -> list[Process]:
    """Return every process of the session led by this pid: its descendants without sessions of their own."""
    return [process for pid in _pids() if (stat := _stat(pid)) and int(stat[3]) == leader and (process := find(pid))]


def inside(directory: Path) -> list[Process]:
    """Return every process of the services under this folder except this one, recorded or not.

    A process is recognized by the mark in its environment; PostgreSQL overwrites it, and is recognized by its working directory.
    """
    others = (process for process in map(find, _pids()) if process is not None and process.pid != os.getpid())
    return [process for process in others if _belongs(process.pid, directory)]


def end(processes: Sequence[Process], first: signal.Signals, grace: float) -> None:
    """End the processes: `first` to the first of them, SIGKILL to all that still run after `grace` seconds."""
    if not processes:
        return
    processes[0].send(first)
    for process in processes:
        process.send(signal.SIGCONT)  # a paused process does not see the signal that ends it
    if not _gone(processes, grace):
        for process in processes:
            process.send(signal.SIGKILL)
        _gone(processes, 5.0)  # the kernel needs a moment to tear down what was killed


def await_reaped(pids: Sequence[int], seconds: float) -> None:
    """Wait for ended processes to leave the process table: their starter has ended, and init may take its time."""
    until = time.monotonic() + seconds
    while any((_PROC / str(pid)).exists() for pid in pids) and time.monotonic() < until:
        for pid in pids:
            _reap(pid)
        time.sleep(0.02)


def _gone(processes: Sequence[Process], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while any(process.alive for process in processes):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def _reap(pid: int) -> None:
    """Reap the process if it is an ended child of this one."""
    with contextlib.suppress(OSError):
        os.waitpid(pid, os.WNOHANG)


def _belongs(pid: int, directory: Path) -> bool:
    home = _PROC / str(pid)
    try:
        marks = [v for v in (home / "environ").read_bytes().split(b"\0") if v.startswith(f"{MARK}=".encode())]
        if marks:
            return Path(os.fsdecode(marks[0]).partition("=")[2]).is_relative_to(directory)
        return (home / "comm").read_text().strip() == "postgres" and (home / "cwd").readlink().is_relative_to(directory)
    except OSError:  # it has ended meanwhile, or belongs to another user
        return False


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())


def _stat(pid: int) -> list[str] | None:
    """Fields 3 and following of /proc/PID/stat: state, parent, … start time at index 19."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _parse(stat: str, boot: str) -> Process:
    return Process(int(stat.partition(" ")[0]), int(stat.rpartition(")")[2].split()[19]), boot.strip())
