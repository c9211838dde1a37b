"""The highest rate whose lag stays flat, ours and Flink's: `make bench-capacity`.

    python -m benchmarks.capacity [--peers ragstream,flink] [--model instant-model|model] [--from 100] [--seconds 180]
                                  [--minutes 15]

The workload of `benchmarks.freshness` over one running pipeline. A rate is held when the lag (the age of the oldest change
that is awaited) grows by less than half a second in the time it is tried, by the medians of its first and its last third.
Rates rise by 1.3 and are tried for 15 s each, twice if need be; from the last that was held, they fall by 1.15 until one is
held for `--seconds`. A peer's search ends after `--minutes` whatever came of it. `--model model` embeds by the local MiniLM on
the same cores. Ends in one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from benchmarks import freshness, workload
from benchmarks.peers import PEERS, Peer
from benchmarks.servers import servers

if TYPE_CHECKING:
    from local_stack.stack import Stack

RISE, FALL = 1.3, 1.15
SCREEN_SECONDS = 15.0
"""Seconds of the first tries of a rate, before one of `--seconds`."""
MOST_GROWTH_S = 0.5
LOAD_SECONDS = 600.0
"""Seconds for the initial load, which the real model embeds."""
DRAIN_SECONDS = 120.0
LATE_SHARE = 0.02
"""The share of commits that are over 0.1 s late, above which the committer limits the rate."""

console = Console(stderr=True)


def main() -> None:
    """Search for each peer's highest sustained rate and print the results."""
    parser = argparse.ArgumentParser(description="the highest rate whose lag stays flat")
    parser.add_argument("--peers", default="ragstream,flink")
    parser.add_argument("--model", choices=["instant-model", "model"], default="instant-model")
    parser.add_argument("--from", dest="first", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--minutes", type=float, default=15)
    chosen = parser.parse_args()
    with servers([*freshness.PARTS, chosen.model]) as stack:
        results = {name: searched(stack, PEERS[name], chosen) for name in chosen.peers.split(",")}
    print(json.dumps({
        "benchmark": "capacity", "model": chosen.model, "seconds": chosen.seconds, "peers": results,
        "machine": {"cores": os.cpu_count()},
    }))  # fmt: skip


def searched(stack: Stack, peer: Peer, chosen: argparse.Namespace) -> dict[str, Any]:
    """The highest rate that one peer sustains, and the latency at half of it."""
    console.print(f"{peer.name}: from {chosen.first:g} changes/s")
    with freshness.running(stack, peer, "kafka", chosen.model) as (source, target):
        loaded = workload.wait_loaded(target, peer.target, freshness.ROWS, LOAD_SECONDS)
        search = Search(peer, source, target, time.monotonic() + chosen.minutes * 60)
        rate, capacity = chosen.first, None
        while search.holds(rate, SCREEN_SECONDS) or search.holds(rate, SCREEN_SECONDS):
            rate *= RISE
        rate /= RISE
        while rate >= 1 and search.time_for(chosen.seconds) and capacity is None:
            capacity = rate if search.holds(rate, chosen.seconds) else None
            rate /= FALL
        if capacity:
            search.holds(capacity / 2, SCREEN_SECONDS * 2)
        wrong = workload.wrong_rows(source, target, peer.target)
    if chosen.model == "model":
        del wrong["wrong_vector"]  # told for the instant model alone
    return {
        "capacity_per_s": capacity and round(capacity, 1), "at_half": search.tried[-1] if capacity else None,
        "tried": search.tried, "initial_load_s": round(loaded, 1), "wrong": wrong,
    }  # fmt: skip


@dataclass
class Search:
    """Tries rates over one running pipeline."""

    peer: Peer
    source: str
    target: str
    until: float
    tried: list[dict[str, Any]] = field(default_factory=list)

    def time_for(self, seconds: float) -> bool:
        """Whether a try of this length ends within `--minutes`."""
        return time.monotonic() + seconds < self.until

    def holds(self, rate: float, seconds: float) -> bool:
        """Whether the pipeline sustains a rate; adds the try's figures to the list."""
        if not self.time_for(seconds):
            return False
        poller, committer = freshness.observed(self.peer, self.source, self.target)
        lags: list[float] = []
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.25):
                lags.append(poller.lag())

        watching = threading.Thread(target=watch)
        watching.start()
        began = time.time()
        committer.run(rate, seconds)
        done.set()
        watching.join()
        poller.drain(DRAIN_SECONDS)
        third = len(lags) // 3
        first, last = float(np.median(lags[:third])), float(np.median(lags[-third:]))
        slope = (last - first) / (seconds * 2 / 3)
        sustained = (
            slope * seconds < MOST_GROWTH_S and committer.late < LATE_SHARE * rate * seconds and not poller.awaited
        )
        self.tried.append({
            "rate": round(rate, 1), "seconds": seconds, "held": sustained, "lag_s_thirds": [round(first, 2), round(last, 2)],
            "slope_ms_per_s": round(slope * 1000, 2), "late": committer.late, **workload.percentiles(poller, began),
            "load_average": round(os.getloadavg()[0], 2),
        })  # fmt: skip
        console.print_json(json.dumps(self.tried[-1]))
        return sustained


if __name__ == "__main__":
    main()
