"""A profile of our latency and CPU by step: `make bench-profiling`.

    python -m benchmarks.profiling [--rates 50,200] [--seconds 60] [--peer ragstream] [--keep FOLDER]

The workload of `benchmarks.freshness`, once a rate. In its first half each process notes the steps of each change
(`benchmarks/noting`); in its second py-spy samples every Python process of ours, without pausing it, and threads' CPU times are
read. Ends in one line of JSON: steps with their p50, mean and p99 and the mean of the slowest 2 %; CPU seconds in 100 s of
each process and of its dearest threads; the functions in which Python's CPU was spent, each with those it called.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import freshness, workload
from benchmarks.peers import PEERS, ROOT
from benchmarks.servers import servers
from benchmarks.workload import Committer, Poller
from local_stack import processes
from local_stack.stack import Stack

_TICKS = os.sysconf("SC_CLK_TCK")
_SHOWN = 40
_LEAST_CPU = 0.5
"""CPU seconds in 100 s below which a process or a thread is left out."""
console = Console(stderr=True, width=150)


def main() -> None:
    """Run the workload once and print the tables."""
    parser = argparse.ArgumentParser(description="where milliseconds and CPU go")
    parser.add_argument("--rates", default="50,200")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--peer", default="ragstream")
    parser.add_argument("--keep", type=Path)
    chosen = parser.parse_args()
    peer = PEERS[chosen.peer]
    with tempfile.TemporaryDirectory(prefix="ragstream-bench-") as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        steps = folder / "steps.jsonl"
        steps.write_text("")
        environment = {"STEPS_FILE": str(steps), "PYTHONPATH": f"{ROOT / 'benchmarks/noting'}:{ROOT}"}
        with (
            servers([*freshness.PARTS, "instant-model"]) as stack,
            freshness.running(stack, peer, "kafka", **environment) as databases,
        ):
            workload.wait_loaded(databases[1], peer.target, freshness.ROWS, 180)
            profiled = {
                rate: profile(stack, freshness.observed(peer, *databases), float(rate), chosen.seconds / 2, folder)
                for rate in chosen.rates.split(",")
            }
    print(json.dumps({"benchmark": "profiling", "peer": chosen.peer, "rates": profiled}))


def profile(
    stack: Stack, observed: tuple[Poller, Committer], rate: float, seconds: float, folder: Path
) -> dict[str, Any]:
    """One rate: warm up, record the steps, then sample, each for a number of seconds."""
    poller, committer = observed
    committer.run(rate, workload.WARM_SECONDS)
    began = time.time()
    committer.run(rate, seconds)
    halfway = time.time()
    sampled = sample(stack, seconds, folder, lambda: committer.run(rate, seconds))
    poller.drain(workload.DRAIN_SECONDS)
    poller.done = [change for change in poller.done if change[1] < halfway]
    noted = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    measured = [line for line in noted if began * 1000 <= line["at"] < halfway * 1000]
    stepped = steps_of([line for line in measured if "pid" not in line])
    collections: dict[str, list[float]] = defaultdict(list)
    for line in measured:
        if "pid" in line:
            collections[str(line["pid"])].append(round(line["ms"], 1))
    show(rate, stepped, sampled)
    seen = workload.percentiles(poller, began)
    return {"seen": seen, "steps_ms": stepped, "collections_ms": collections, "processes": sampled}


def steps_of(lines: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """p50, mean and p99 of each step in milliseconds, and its mean in the slowest 2 % of the changes."""
    if not lines:
        return {}
    names = [name for name in lines[0] if name not in ("at", "group", "units")]
    whole = np.array([sum(line[name] for name in names) for line in lines])
    slowest = whole >= np.percentile(whole, 98)
    columns = {name: np.array([line[name] for line in lines]) for name in (*names, "group", "units")} | {
        "in all": whole
    }
    return {
        name: {
            "p50": round(float(np.median(values)), 2), "mean": round(float(values.mean()), 2),
            "p99": round(float(np.percentile(values, 99)), 1), "slowest": round(float(values[slowest].mean()), 1),
        }
        for name, values in columns.items()
    }  # fmt: skip


def sample(stack: Stack, seconds: float, folder: Path, work: Any) -> dict[str, Any]:
    """CPU of our processes and their threads under load, and py-spy's samples of Python."""
    ours = {
        process.pid: described(process.pid)
        for process in processes.inside(stack.directory / "run" / "peer")
        if process.pid != os.getpid()
    }
    spies = {
        pid: subprocess.Popen(
            [str(Path(sys.executable).with_name("py-spy")), "record", "--nonblocking", "--threads", "--rate", "100",
             "--format", "raw", "--pid", str(pid), "--duration", str(int(seconds - 2)), "--output", str(folder / f"{pid}.raw")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for pid, name in ours.items() if name.startswith("python")
    }  # fmt: skip
    before = {pid: threads(pid) for pid in ours}
    began = time.time()
    work()
    took = time.time() - began
    after = {pid: threads(pid) for pid in ours}
    for spy in spies.values():
        spy.wait(30)
    profile: dict[str, Any] = {}
    for pid, name in ours.items():
        ticks = Counter[str]()
        for thread, (label, until) in after[pid].items():
            ticks[label] += until - before[pid].get(thread, ("", 0))[1]
        cpu = {label: round(count / _TICKS / took * 100, 1) for label, count in ticks.most_common()}
        if sum(cpu.values()) >= _LEAST_CPU:
            path = folder / f"{pid}.raw"
            profile[f"{pid} {name}"] = {
                "cpu_s_per_100s": round(sum(cpu.values()), 1),
                "threads": {label: seconds for label, seconds in cpu.items() if seconds >= _LEAST_CPU},
                "python": hot(path.read_text().splitlines()) if path.exists() else {},
            }  # fmt: skip
    return profile


def described(pid: int) -> str:
    """A short description of a process, and its parent."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    except OSError:
        return "gone"
    line = " ".join(words[1:])
    known = [
        name
        for name in ("reader.process", "pyspark.daemon", "--jobs index", "--jobs land", "pyspark-shell")
        if name in line
    ]
    return f"{Path(words[0]).name} {known[0] if known else line[-60:]}, child of {parent}"


def threads(pid: int) -> dict[str, tuple[str, int]]:
    """Name and CPU ticks of each thread of a process; numbers at the end of a name are left out."""
    processes: dict[str, tuple[str, int]] = {}
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        fields = rest.split()
        processes[task.name] = name.rstrip("0123456789#- "), int(fields[11]) + int(fields[12])
    return processes


def hot(stacks: list[str]) -> dict[str, Any]:
    """Shares of the samples by function: alone (`self`), and with what it called (`all`)."""
    alone, everything = Counter[str](), Counter[str]()
    for line in stacks:
        frames, _, count = line.rpartition(" ")
        names = [frame.rpartition(":")[0] + ")" if ":" in frame else frame for frame in frames.split(";")]
        alone[names[-1]] += int(count)
        everything.update(dict.fromkeys(names, int(count)))
    samples = sum(alone.values()) or 1

    def shares(counts: Counter[str]) -> dict[str, float]:
        return {name: round(count / samples, 3) for name, count in counts.most_common(_SHOWN) if count > samples / 200}

    return {"samples": samples, "self": shares(alone), "all": shares(everything)}


def show(rate: float, stepped: dict[str, dict[str, float]], sampled: dict[str, Any]) -> None:
    """Print the tables."""
    table = Table(f"{rate:g}/s: step, ms", "p50", "mean", "p99", "in the slowest 2 %")
    for name, values in stepped.items():
        table.add_row(name, *map(str, values.values()))
    console.print(table)
    for process, profile in sampled.items():
        console.print(process, profile["cpu_s_per_100s"], profile["threads"], markup=False)


if __name__ == "__main__":
    main()
