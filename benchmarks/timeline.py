"""Where each millisecond of a change goes, from inside: `make bench-timeline`.

    python -m benchmarks.timeline [--rate 50] [--seconds 60]

Runs the workload of `benchmarks.freshness` with a driver whose workers note when they begin and end each step; what the
clients see of it is `freshness`' to say. Spark plans nothing while records flow: its part is in the way to the worker.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import freshness
from benchmarks.peers import PEERS
from benchmarks.peers.noting import STEPS
from benchmarks.servers import servers


def table_of(path: Path, since_ms: float) -> dict[str, dict[str, float]]:
    """p50, mean and p99 of each step in milliseconds, of changes committed since a moment."""
    rows = [row for line in path.read_text().splitlines() if (row := json.loads(line))["commit"] >= since_ms]
    whole = [sum(row[step] for step in STEPS) for row in rows]
    columns = {step: [row[step] for row in rows] for step in STEPS}
    columns |= {"in all": whole, "changes a group": [row["group"] for row in rows]}
    return {name: _told(values) for name, values in columns.items()}


def _told(values: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(values, (50, 99))
    return {"p50": round(float(p50), 1), "mean": round(float(np.mean(values)), 1), "p99": round(float(p99), 1)}


def main() -> None:
    """Run the workload once and print the table."""
    parser = argparse.ArgumentParser(description="where each millisecond goes")
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ragstream-bench-") as folder:
        path = Path(folder) / "steps.jsonl"
        with (
            servers([*freshness.PARTS, "instant-model"]) as stack,
            freshness.running(stack, PEERS["ragstream"], "kafka", STEPS_FILE=str(path)) as (source, target),
        ):
            seen = freshness.commit(stack, PEERS["ragstream"], source, target, chosen.rate, chosen.seconds)
        steps = table_of(path, seen["measured_since"] * 1000)
    shown = Table("step, ms", "p50", "mean", "p99", title=f"{chosen.rate:g} changes/s: commit → written in the store")
    for name, values in steps.items():
        shown.add_row(name, *map(str, values.values()))
    Console(stderr=True).print(shown)
    print(json.dumps({"benchmark": "timeline", "rate": chosen.rate, "steps": steps, "seen": seen}))


if __name__ == "__main__":
    main()
