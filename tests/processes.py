"""Processes for tests that kill them: forked from one that has imported what they need, so that a start costs little."""

from __future__ import annotations

import multiprocessing

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "tests.killed_migration",
        "tests.killed_writer",
        "glue_jobs.cli.migrate",
        "glue_jobs.operations.checks",
        "embeddings.bedrock.embedder",
        "sinks.documentdb.writer",
        "sinks.opensearch.writer",
        "sinks.pgvector.writer",
        "opensearchpy",
        "pymongo",
    ]
)
