"""What processes need over time: resident memory, descriptors, threads; and whether that is flat."""

from __future__ import annotations

import csv
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from local_stack.processes import Process

WARM_SECONDS = 120.0
"""Of a process's life: caches fill, a JVM loads classes."""
LIFE_SECONDS = 300.0
"""What is left of a shorter life says nothing of a slope."""


class Sample(NamedTuple):
    """One process at one moment."""

    second: float
    role: str
    pid: int
    resident_mib: float
    descriptors: int
    threads: int


class Samples(threading.Thread):
    """Looks at processes by role every few seconds until halted."""

    def __init__(self, roles: Callable[[], Mapping[str, Iterable[Process]]], every: float = 5.0) -> None:
        super().__init__(name="samples", daemon=True)
        self.samples: list[Sample] = []
        self._roles, self._every, self._halt = roles, every, threading.Event()

    def run(self) -> None:
        """Look until halted."""
        began = time.monotonic()
        while not self._halt.wait(self._every):
            second = round(time.monotonic() - began, 1)
            for role, processes in self._roles().items():
                for process in processes:
                    if resident := process.resident_bytes:
                        needs = (round(resident / 2**20, 1), process.descriptors, process.threads)
                        self.samples.append(Sample(second, role, process.pid, *needs))

    def halt(self) -> None:
        """Stop looking."""
        self._halt.set()
        self.join()

    def write(self, path: Path) -> None:
        """Write them as CSV."""
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(Sample._fields)
            writer.writerows(self.samples)

    def lives(self) -> dict[tuple[str, int], list[Sample]]:
        """By role and process, without the time in which it grew warm."""
        by_life: dict[tuple[str, int], list[Sample]] = defaultdict(list)
        born: dict[int, float] = {}
        for sample in self.samples:
            if sample.second - born.setdefault(sample.pid, sample.second) >= WARM_SECONDS:
                by_life[sample.role, sample.pid].append(sample)
        return {
            life: samples for life, samples in by_life.items() if samples[-1].second - samples[0].second >= LIFE_SECONDS
        }

    def table(self) -> str:
        """By role, over all its processes: how many there were, and the medians of each tenth of the time."""
        lines = []
        for role in sorted({sample.role for sample in self.samples}):
            of_role = [sample for sample in self.samples if sample.role == role]
            tenths: dict[int, list[Sample]] = defaultdict(list)
            for sample in of_role:
                tenths[int(10 * sample.second / (of_role[-1].second + 1))].append(sample)
            pids = len({sample.pid for sample in of_role})
            for name in ("resident_mib", "descriptors", "threads"):
                medians = [f"{statistics.median(getattr(s, name) for s in tenths[n]):.0f}" for n in sorted(tenths)]
                lines.append(f"{role:8} ({pids:2} processes) {name:12} {' '.join(f'{m:>5}' for m in medians)}")
        return "\n".join(lines)


def grown_by(samples: list[Sample]) -> float:
    """How much more memory (MiB) is resident in the last tenth of a life than in its first, medians of both."""
    tenth = max(1, len(samples) // 10)
    first, last = (statistics.median(s.resident_mib for s in part) for part in (samples[:tenth], samples[-tenth:]))
    return last - first
