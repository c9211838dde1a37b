"""A budget in a storm of throttles: what four processes asked of a model, against what they were allowed: `make bench-budget`.

Each process embeds texts of its own as fast as it can, and the endpoint throttles a fifth of all requests. The endpoint counts
what reaches it. `used` is that rate as a share of the allowed one, over a time that begins when all processes are at work;
`kept` the same from the first request on, so that one which a slow machine sends late is counted with the time it was due in. A
second run limits tokens, a third one answers of a text model. Every text has to have its vector in the end, every question its
answer.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from embeddings import BedrockEmbeddingConfig, open_embedder
from generation import BedrockGenerationConfig, Message, open_generator
from local_stack.models.service import ModelService
from local_stack.servers.connect import request_json

PROCESSES = 4
MODEL = "amazon.titan-embed-text-v2:0"
TEXT_MODEL = "amazon.nova-lite-v1:0"
THROTTLES = 0.2
WARM_UP_SECONDS = 2.0


def embed(settings: dict[str, Any], number: int, until: float) -> tuple[int, int]:
    """Embed texts until a time; returns how many, and how many of them have no vector."""
    embedder = open_embedder(BedrockEmbeddingConfig.model_validate(settings))
    texts = lost = 0
    while time.time() < until:
        batch = [f"process {number} text {texts + place}" for place in range(4)]
        lost += sum(not isinstance(vector, np.ndarray) for vector in embedder.embed_documents(batch))
        texts += len(batch)
    return texts, lost


def ask(settings: dict[str, Any], number: int, until: float) -> tuple[int, int]:
    """Ask a text model until a time, by four threads; returns how many times, and how many of them without an answer."""
    text = {"model": TEXT_MODEL, "timeout_seconds": 30, "max_tokens": 20}
    settings = {name: settings[name] for name in ("type", "endpoint_url", "budget")} | text
    generator = open_generator(BedrockGenerationConfig.model_validate(settings))

    def asking(thread: int) -> tuple[int, int]:
        asked = lost = 0
        while time.time() < until:
            answer = generator.converse([Message("user", f"process {number} thread {thread} question {asked}")])
            asked, lost = asked + 1, lost + (answer.output_tokens != 6)
        return asked, lost

    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(asking, range(4)))
    return sum(asked for asked, _ in counts), sum(lost for _, lost in counts)


type Work = Callable[[dict[str, Any], int, float], tuple[int, int]]


def storm(url: str, ledger: Path, seconds: float, work: Work, **limits: float) -> dict[str, float]:
    """Run the processes under these limits, and compare what reached the endpoint with them."""
    request_json(url, "POST", "/faults", {"throttle": THROTTLES})
    settings = {
        "type": "bedrock", "model": MODEL, "dimensions": 256, "endpoint_url": url, "requests_in_flight": 4,
        "budget": {**limits, "ledger": {"type": "file", "path": str(ledger)}},
    }  # fmt: skip
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(work, [settings] * PROCESSES, range(PROCESSES), [0.0] * PROCESSES))  # imports
        until = time.time() + WARM_UP_SECONDS + seconds + 1
        first, start = _counters(url), time.monotonic()
        running = [pool.submit(work, settings, number, until) for number in range(PROCESSES)]
        time.sleep(WARM_UP_SECONDS)
        before, began = _counters(url), time.monotonic()
        time.sleep(seconds)
        after, took = _counters(url), time.monotonic() - began
        done = [job.result() for job in running]
    request_json(url, "POST", "/faults", {})
    (limit, allowed), *_ = limits.items()
    return {
        "used": round(_amount(limit, before, after) / took * 60 / allowed, 3),
        "kept": round(_amount(limit, first, after) / (began + took - start) * 60 / allowed, 3),
        "texts": sum(texts for texts, _ in done),
        "lost": sum(lost for _, lost in done),
        "throttled": after["throttled"] - before["throttled"],
    }


def _amount(limit: str, before: dict[str, float], after: dict[str, float]) -> float:
    """What reached the endpoint between two looks, in the limit's unit."""
    names = ("tokens",) if limit == "tokens_per_minute" else ("requests", "generations", "throttled", "failed")
    return sum(after[name] - before[name] for name in names)


def _counters(url: str) -> dict[str, float]:
    _, body = request_json(url, "GET", "/counters")
    return dict(body)


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ModelService(Path(folder) / "model", mode="instant") as model:
        url = model.endpoint["endpoint_url"]
        figures = {
            name: storm(url, Path(folder) / name, options.seconds, embed, **{name: limit})
            for name, limit in (("requests_per_minute", 1200.0), ("tokens_per_minute", 6000.0))
        }
        figures["answers"] = storm(url, Path(folder) / "answers", options.seconds, ask, requests_per_minute=1200.0)
    print(json.dumps({"benchmark": "budget", "processes": PROCESSES, "seconds": options.seconds, **figures}))


if __name__ == "__main__":
    main()
