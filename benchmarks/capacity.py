"""The highest rate that is held with the real model, and the latency at half of it: `make bench-capacity`.

    python -m benchmarks.capacity [--from 20] [--seconds 180]

The workload of `benchmarks.freshness` over one running pipeline, embedded by the local MiniLM on the same cores. A rate is
held when the age of the oldest change that is awaited does not grow from the first third of the time to the last.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks import freshness, workload
from benchmarks.peers import PEERS
from benchmarks.servers import servers

PEER = PEERS["ragstream"]
SCREEN_SECONDS = 40.0
"""How long a rate is tried before it is worth three minutes."""
STEP = 1.25
"""From one rate to the next; what is found is the highest of these that is held."""
LEAST_SECONDS = 0.5
"""Growth of the age that is taken for noise."""
LOAD_SECONDS = 600.0

console = Console(stderr=True)


def main() -> None:
    """Raise the rate until it is no longer held, confirm the last, and measure at half of it."""
    parser = argparse.ArgumentParser(description="capacity with the real model")
    parser.add_argument("--from", dest="first", type=float, default=20)
    parser.add_argument("--seconds", type=float, default=180)
    chosen = parser.parse_args()
    tried: list[dict[str, Any]] = []
    with (
        servers([*freshness.PARTS, "model"]) as stack,
        freshness.running(stack, PEER, "kafka", "model") as (source, target),
    ):
        loaded = workload.wait_loaded(target, PEER.target, freshness.ROWS, LOAD_SECONDS)
        rate = chosen.first
        while held(source, target, rate, SCREEN_SECONDS, tried):
            rate *= STEP
        rate /= STEP
        while not held(source, target, rate, chosen.seconds, tried):
            rate /= STEP
        held(source, target, rate / 2, 60.0, tried)
        wrong = workload.wrong_rows(source, target, PEER.target)
    del wrong["wrong_vector"]  # told for the instant model alone
    print(json.dumps({
        "benchmark": "capacity", "model": "MiniLM, same cores", "capacity_per_s": round(rate, 1), "at_half": tried[-1],
        "tried": tried, "initial_load_s": round(loaded, 1), "wrong": wrong, "machine": {"cores": os.cpu_count()},
    }))  # fmt: skip


def held(source: str, target: str, rate: float, seconds: float, tried: list[dict[str, Any]]) -> bool:
    """Whether the pipeline keeps up with a rate; what came of it is added to what was tried."""
    poller, committer = freshness.observed(PEER, source, target)
    ages: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.25):
            ages.append(poller.lag())

    watching = threading.Thread(target=watch)
    watching.start()
    began = time.time()
    committer.run(rate, seconds)
    done.set()
    watching.join()
    poller.drain(LOAD_SECONDS)
    third = len(ages) // 3
    first, last = (float(np.percentile(part, 90)) for part in (ages[:third], ages[-third:]))
    keeps_up = last <= 1.5 * first + LEAST_SECONDS and committer.late < 0.02 * rate * seconds
    thirds = [round(first, 2), round(last, 2)]
    tried.append({
        "rate": round(rate, 1), "seconds": seconds, "held": keeps_up, "oldest_s_first_and_last_third": thirds,
        "late": committer.late, **workload.percentiles(poller, began), "load_average": os.getloadavg()[0],
    })  # fmt: skip
    console.print_json(json.dumps(tried[-1]))
    return keeps_up


if __name__ == "__main__":
    main()
