"""The embedder in the process: any sentence encoder exported to ONNX, run by onnxruntime."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from embeddings.errors import DimensionMismatchError, EmbeddingRejectedError
from embeddings.onnx.config import LocalEmbeddingConfig
from embeddings.protocol import Embedding, EmbeddingCounts, EmbeddingRejected, Purpose, Truncation, Vector
from embeddings.vectors import checked, mean
from schemas.errors import ConfigurationError
from transforms.documents.words import is_blank

type Pooling = Literal["none", "cls", "mean"]


class Encoded(NamedTuple):
    """A text's vector and its number of tokens."""

    vector: Vector
    tokens: int


class OnnxEncoder:
    """An open session and tokenizer. Thread-safe.

    Texts are run one at a time: on a CPU a batch saves nothing (measured: 16 ms a text of 60 tokens in either case), and a
    text's vector is the same to the last bit, whichever other texts are encoded with it.
    """

    def __init__(self, folder: Path, *, max_tokens: int, threads: int, pooling: Pooling = "none") -> None:
        """Load both files; raise `ConfigurationError` if one is missing or unreadable."""
        import onnxruntime
        from tokenizers import Tokenizer

        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Idle threads that spin take CPU from the next task slot.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._session: Any = onnxruntime.InferenceSession(
                folder / "model.onnx", options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ConfigurationError(
                f"embedding.path: no sentence encoder can be loaded from {folder}: {type(error).__name__}",
                condition="MODEL_NOT_LOADED",
                hint="the folder needs model.onnx and tokenizer.json",
            ) from error
        self._tokenizer.enable_truncation(max_tokens)
        self._tokenizer.no_padding()
        self._pooling = pooling
        self._inputs = {tensor.name for tensor in self._session.get_inputs()}

    def tokens(self, text: str) -> int:
        """Count a text's tokens, those of every part."""
        encoding = self._tokenizer.encode(text)
        return sum(len(part.ids) for part in (encoding, *encoding.overflowing))

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Return each text's vector, in order."""
        return [self._encode(text) for text in texts]

    def token_vectors(self, text: str) -> Vector:
        """Return the vectors of a text's tokens, those of every part; the export has them as `token_embeddings`."""
        encoding = self._tokenizer.encode(text)
        parts = [self._run(part.ids, "token_embeddings") for part in (encoding, *encoding.overflowing)]
        tokens: Vector = np.concatenate(parts)
        return tokens

    def _encode(self, text: str) -> Encoded:
        encoding = self._tokenizer.encode(text)
        parts = [part.ids for part in (encoding, *encoding.overflowing)]
        sizes, vectors = [len(ids) for ids in parts], [self._pooled(self._run(ids)) for ids in parts]
        return Encoded(vectors[0] if len(vectors) == 1 else mean(vectors, sizes), sum(sizes))

    def _pooled(self, output: Vector) -> Vector:
        """A text's unit vector, of what the graph gives for it."""
        if self._pooling == "none":
            return output
        vector = output[0] if self._pooling == "cls" else output.mean(axis=0)
        unit: Vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        return unit

    def _run(self, numbers: Sequence[int], output: str | None = None) -> Vector:
        """One output of the model, by default its first one."""
        ids = np.array([numbers], np.int64)
        name = output or self._session.get_outputs()[0].name
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        (vectors,) = self._session.run([name], {tensor: inputs[tensor] for tensor in self._inputs})
        vector: Vector = vectors[0]
        return vector


class LocalEmbedder:
    """An `Embedder` without a server. Pickles as its configuration; a process loads the model once."""

    max_items = 32
    """Texts of one call of a bulk caller; the model has no limit."""

    def __init__(self, config: LocalEmbeddingConfig) -> None:
        self._config = config

    @property
    def fingerprint(self) -> str:
        """Name what a vector depends on; not the folder."""
        config = self._config
        # Stores were filled under this name when texts were cut at the end; only vectors of longer texts differ.
        return (
            f"model={config.model};dimensions={config.dimensions};purpose={Purpose.DOCUMENT};"
            f"truncation={Truncation.END}/{config.max_tokens} tokens;normalisation=unit"
            f"{'' if config.pooling == 'none' else f';pooling={config.pooling}'}"
        )

    @property
    def dimensions(self) -> int:
        """The length of every vector."""
        return self._config.dimensions

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text that the model takes at once."""
        return self._config.max_tokens

    def embed_documents(self, texts: Sequence[str]) -> list[Embedding]:
        """Return one embedding a text, in order; equal texts are encoded once."""
        distinct = [text for text in dict.fromkeys(texts) if not is_blank(text)]
        loaded = _loaded(self._config)
        encoded = loaded.encoder.encode(distinct)
        loaded.count(encoded)
        vectors = {text: self._checked(result.vector) for text, result in zip(distinct, encoded, strict=True)}
        blank = EmbeddingRejected("BLANK_TEXT", "the text is blank")
        return [vectors.get(text, blank) for text in texts]

    def embed_query(self, text: str) -> Vector:
        """Return the vector of a question: as of a document, behind the prefix."""
        (embedding,) = self.embed_documents([text if is_blank(text) else self._config.query_prefix + text])
        if isinstance(embedding, EmbeddingRejected):
            raise EmbeddingRejectedError(
                f"the question has no vector: {embedding.message}", condition=embedding.condition
            )
        return embedding

    def check(self) -> None:
        """Load the model and embed one word."""
        self.embed_query("ragstream")

    def counts(self) -> EmbeddingCounts:
        """Return the counts of this process."""
        return _loaded(self._config).counts

    def _checked(self, vector: Vector) -> Embedding:
        if len(vector) != self._config.dimensions:
            raise DimensionMismatchError(
                f"embedding.dimensions is {self._config.dimensions}, but the model in {self._config.path} has {len(vector)}",
                condition="DIMENSION_MISMATCH",
                hint="set embedding.dimensions to what the model has",
            )
        return checked(vector, self._config.dimensions)


@dataclass(slots=True)
class _Loaded:
    encoder: OnnxEncoder
    counts: EmbeddingCounts = field(default_factory=EmbeddingCounts)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, encoded: Sequence[Encoded]) -> None:
        with self._lock:
            self.counts += EmbeddingCounts(1, len(encoded), sum(result.tokens for result in encoded))


@functools.cache
def _loaded(config: LocalEmbeddingConfig) -> _Loaded:
    encoder = OnnxEncoder(config.path, max_tokens=config.max_tokens, threads=config.threads, pooling=config.pooling)
    return _Loaded(encoder)
