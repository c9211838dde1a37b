"""`embed_chunks` over a DataFrame: what each text of a column gets."""

from __future__ import annotations

import numpy as np
from chispa import assert_df_equality
from pyspark.sql import SparkSession

from embeddings import open_embedder
from embeddings.udf import EMBEDDING_TYPE, embed_chunks
from local_stack.models.instant import instant_vector
from tests.lake_to_store import Lake


def test_each_text_has_its_vector_or_the_reason_why_it_has_none(spark: SparkSession, lake: Lake) -> None:
    lake.faults(refuse_text="forbidden")
    texts = ["one", "two", "one", None, " ", "a forbidden thing"]
    chunks = spark.createDataFrame([(at, text) for at, text in enumerate(texts)], "row int, chunk_text string")
    embedded = chunks.repartition(2, "chunk_text").withColumn(
        "embedding", embed_chunks(open_embedder(lake.embedding))("chunk_text")
    )
    assert embedded.schema["embedding"].dataType == EMBEDDING_TYPE
    rows = embedded.collect()
    lengths = spark.createDataFrame(
        [(r.row, r.embedding.embedding and len(r.embedding.embedding), r.embedding.condition) for r in rows],
        "row int, dimensions int, condition string",
    )
    wanted = spark.createDataFrame(
        [(0, 512, None), (1, 512, None), (2, 512, None), (3, None, None), (4, None, "BLANK_TEXT"),
         (5, None, "MODEL_REFUSED_TEXT")],
        "row int, dimensions int, condition string",
    )  # fmt: skip
    assert_df_equality(lengths, wanted, ignore_row_order=True)
    for row in rows:
        if row.embedding.embedding:
            vector = instant_vector(row.chunk_text)
            assert np.allclose(row.embedding.embedding[: len(vector)], vector, atol=1e-6)
    assert lake.asked()["distinct_texts"] == 3  # and the probe that tells a refusal from an outage
