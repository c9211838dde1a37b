"""Embedding stage against the same model in a bare loop, in texts a second: `make bench-embedding`.

The bare loop encodes in this process. The stage is `embed_chunks` in Spark on one task slot, through boto3 and the model
endpoint in a process of its own. Both take the same texts of about 60 tokens, in turn, so that a noisy machine slows both;
the ratio is the median over the rounds. Every round embeds texts of its own, as an unchanged text would cost no call. Told
too is how full the stage's requests were, as the endpoint counted them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embeddings import BedrockEmbeddingConfig, open_embedder
from embeddings.onnx.embedder import OnnxEncoder
from embeddings.udf import embed_chunks
from glue_jobs.runtime.spark.session import open_session
from local_stack.models.minilm import open_minilm
from local_stack.models.service import ModelService
from local_stack.servers.connect import request_json

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SENTENCE = (
    "the order was shipped late because of a printer that would not connect to the office network after an update "
    "and the customer wants a refund now please help"
)
FAMILIES = {"amazon.titan-embed-text-v2:0": (512, 8), "cohere.embed-english-v3": (1024, 4)}
"""Dimensions, and requests in flight."""


def texts(round_number: int, count: int) -> list[str]:
    """Make distinct texts of 45 to 68 words, about 60 tokens."""
    chance, words = random.Random(round_number), SENTENCE.split()
    return [" ".join(chance.choices(words, k=chance.randint(45, 68))) + f" {row}" for row in range(count)]


def bare_loop(encoder: OnnxEncoder, batch: Sequence[str]) -> float:
    """Return texts a second of the model alone."""
    started = time.perf_counter()
    encoder.encode(batch)
    return len(batch) / (time.perf_counter() - started)


def stage(spark: SparkSession, config: BedrockEmbeddingConfig, batch: Sequence[str]) -> float:
    """Return texts a second of the pandas UDF."""
    chunks = spark.createDataFrame([(text,) for text in batch], "chunk_text string").coalesce(1).cache()
    chunks.count()
    embedded = chunks.select(embed_chunks(open_embedder(config))("chunk_text").alias("e"))
    started = time.perf_counter()
    row = embedded.selectExpr("count(e.embedding) AS vectors").first()
    seconds = time.perf_counter() - started
    chunks.unpersist()
    if row is None or row.vectors != len(batch):
        raise AssertionError(f"{row} vectors of {len(batch)} texts")
    return len(batch) / seconds


def rounds(url: str, folder: Path, count: int, times: int) -> Iterator[tuple[str, float, float, float]]:
    """Yield model, stage, bare loop and texts a request of each round, after a warm-up round."""
    encoder = open_minilm()
    spark = open_session("bench-embedding", checkpoint=str(folder / "checkpoints"), cores=1)
    for number in range(times + 1):
        for model, (dimensions, in_flight) in FAMILIES.items():
            config = BedrockEmbeddingConfig(
                type="bedrock", model=model, dimensions=dimensions, endpoint_url=url, requests_in_flight=in_flight
            )
            batch = texts(number, count if number else 20)
            request_json(url, "POST", "/reset", {})
            before, through, after = bare_loop(encoder, batch), stage(spark, config, batch), bare_loop(encoder, batch)
            if number:
                _, counted = request_json(url, "GET", "/counters")
                yield model, through, (before + after) / 2, counted["texts"] / counted["requests"]
    spark.stop()


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedding")
    parser.add_argument("--texts", type=int, default=480)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    by_model: dict[str, list[tuple[float, float, float]]] = {model: [] for model in FAMILIES}
    with tempfile.TemporaryDirectory() as folder, ModelService(Path(folder) / "model") as service:
        url = service.endpoint["endpoint_url"]
        for model, through, alone, filled in rounds(url, Path(folder), options.texts, options.rounds):
            by_model[model].append((through, alone, filled))
            print(f"{model}: {through:.1f} texts/s, bare loop {alone:.1f}, ratio {through / alone:.3f}")
    figures = {
        model: {
            "texts_per_second": round(statistics.median(through for through, _, _ in runs), 1),
            "bare_loop_texts_per_second": round(statistics.median(alone for _, alone, _ in runs), 1),
            "ratio": round(statistics.median(through / alone for through, alone, _ in runs), 3),
            "texts_per_request": round(statistics.median(filled for _, _, filled in runs), 1),
        }
        for model, runs in by_model.items()
    }
    versions = {name: importlib.metadata.version(name) for name in ("onnxruntime", "boto3", "pyspark")}
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "load_before": round(load, 2)}
    print(
        json.dumps(
            {"benchmark": "embedding", "texts": options.texts, "figures": figures, **machine, "versions": versions}
        )
    )


if __name__ == "__main__":
    main()
