"""The embedder as a pandas UDF, for every path that embeds a DataFrame: first load, rebuild, migration, users' own jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import batched
from typing import TYPE_CHECKING, Any

import pandas as pd
from pyspark.sql import types as T
from pyspark.sql.pandas.functions import pandas_udf

from embeddings.protocol import Embedder, Embedding, EmbeddingRejected
from embeddings.stream import embed_batches

if TYPE_CHECKING:
    from pyspark.sql._typing import UserDefinedFunctionLike

EMBEDDING_TYPE = T.StructType(
    [
        T.StructField("embedding", T.ArrayType(T.FloatType(), containsNull=False)),
        T.StructField("condition", T.StringType()),
        T.StructField("message", T.StringType()),
    ]
)
"""A vector, or the condition and message of the rejection; all null for a null text."""

ROWS_AT_ONCE = 256
"""Vectors of one frame for Spark; as Python floats ten thousand of them take 300 MB."""


def embed_chunks(embedder: Embedder) -> UserDefinedFunctionLike:
    """Return a pandas UDF from a text column to `EMBEDDING_TYPE`.

    A task that Spark runs again sends its texts again: look vectors up in a store or cache first. A text that the model
    refuses has a null vector and the reason, and fails no task. Within a partition each distinct text is sent once, and
    requests are packed across Arrow batches to the provider's item limit; partition by text
    (`repartition(n, "chunk_text")`) to have that for the whole DataFrame.

        chunks.withColumn("embedded", embed_chunks(embedder)("chunk_text")).select("*", "embedded.embedding")
    """

    def embed(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        for embeddings in embed_batches(map(_texts, batches), embedder):
            yield from map(_frame, batched(embeddings, ROWS_AT_ONCE))

    # The hints above are strings under `annotations`, and pandas_udf resolves them in this module: pd stays a global.
    udf = pandas_udf(embed, EMBEDDING_TYPE)  # type: ignore[call-overload]
    # A deterministic UDF may be evaluated once for each use of its result, and every evaluation costs money.
    return udf.asNondeterministic()  # type: ignore[no-any-return]


def _texts(column: Any) -> Sequence[str | None]:
    return [text if isinstance(text, str) else None for text in column]


def _frame(embeddings: Sequence[Embedding | None]) -> pd.DataFrame:
    """Embeddings as columns; vectors as lists, which Spark converts fastest."""
    rejected = [embedding if isinstance(embedding, EmbeddingRejected) else None for embedding in embeddings]
    return pd.DataFrame(
        {
            "embedding": pd.Series([_vector(embedding) for embedding in embeddings], dtype=object),
            "condition": pd.Series([reason.condition if reason else None for reason in rejected], dtype=object),
            "message": pd.Series([reason.message if reason else None for reason in rejected], dtype=object),
        }
    )


def _vector(embedding: Embedding | None) -> list[float] | None:
    if embedding is None or isinstance(embedding, EmbeddingRejected):
        return None
    numbers: list[float] = embedding.tolist()
    return numbers
