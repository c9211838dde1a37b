"""The configuration of a model inside the process; it needs no onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from schemas.model import StrictModel


class LocalEmbeddingConfig(StrictModel):
    """A sentence encoder in a folder: `model.onnx` (ids and mask in, vectors out) and `tokenizer.json`."""

    type: Literal["local"]
    path: Path
    """The folder; every executor needs it at the same place."""
    model: str = Field(min_length=1)
    """The model's name, kept with the vectors."""
    dimensions: int = Field(gt=0)
    max_tokens: int = Field(default=256, gt=0)
    """Tokens of a text that the model takes at once; a longer one is embedded in parts, and has the mean of their vectors."""
    pooling: Literal["none", "cls", "mean"] = "none"
    """What makes a text's vector of its tokens', where the graph gives those: the first one's, or their mean, at length 1. With
    `none` the graph gives the text's own unit vector."""
    query_prefix: str = ""
    """Put before a question, for models that want one (bge: `Represent this sentence for searching relevant passages: `)."""
    threads: int = Field(default=1, ge=1)
    """Threads of one process; one a Spark task slot keeps the cores full without fighting over them."""
