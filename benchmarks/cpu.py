"""CPU seconds of each group of processes, from two readings of /proc, without sampling in between; and their memory."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from local_stack.processes import MARK

_PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(directory: Path) -> dict[str, float]:
    """CPU seconds by group until now, those of reaped children included; `machine` is all that was not idle.

    A group is named by the last part of the process's `MARK`, which is below the stack's folder: a service of the stack, or
    what `freshness.child` named. A process without one (PostgreSQL overwrites its own) is its parent's. This one is `workload`.
    """
    totals = _by_group(directory, lambda fields: sum(map(int, fields[11:15])) / _TICKS)
    user, nice, system, _, _, irq, softirq, *_ = map(int, (_PROC / "stat").read_text().split("\n")[0].split()[1:])
    totals["machine"] = (user + nice + system + irq + softirq) / _TICKS
    return totals


def resident_mb(directory: Path) -> dict[str, float]:
    """Resident megabytes by group, pages that processes share counted for each."""
    return _by_group(directory, lambda fields: int(fields[21]) * _PAGE / 1_000_000)


def _by_group(directory: Path, value_of: Callable[[list[str]], float]) -> dict[str, float]:
    """Sums over each group of a value of `/proc/PID/stat`, from its third field on."""
    mark = f"{MARK}={directory}/".encode()
    values: dict[int, float] = {}
    parents: dict[int, int] = {}
    groups = {os.getpid(): "workload"}
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended meanwhile
            continue
        parents[pid], values[pid] = int(fields[1]), value_of(fields)
        marks = [value for value in variables if value.startswith(mark)]
        if marks:
            groups.setdefault(pid, os.fsdecode(marks[0]).rpartition("/")[2])
    totals: dict[str, float] = defaultdict(float)
    for pid, value in values.items():
        ancestor = pid
        while ancestor in parents and ancestor not in groups:
            ancestor = parents[ancestor]
        if ancestor in groups:
            totals[groups[ancestor]] += value
    return dict(totals)


def spent(before: dict[str, float], after: dict[str, float], seconds: float) -> dict[str, float]:
    """CPU seconds of each group between two readings, for 100 s of wall time; `others` is the rest of the machine."""
    took = {name: after[name] - before.get(name, 0.0) for name in after}
    took["others"] = 2 * took["machine"] - sum(took.values())
    return {name: round(value / seconds * 100, 1) for name, value in sorted(took.items())}
