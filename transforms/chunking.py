"""Cutting text: a kept splitter, and our estimate of a token."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from semantic_text_splitter import TextSplitter

if TYPE_CHECKING:
    from schemas.tables import ChunkConfig

BYTES_A_TOKEN = 4
"""English averages a little over four bytes a token in the tokenizers of Titan, Cohere and MiniLM; scripts of two and
three bytes a character come out near one token for two characters, which is on the safe side."""


def tokens(text: str) -> int:
    """Estimate a text's tokens without a tokenizer: models differ, and the cut must not change with the model."""
    return -(-len(text.encode("utf-8", "replace")) // BYTES_A_TOKEN)


@lru_cache
def _splitter(max_tokens: int, overlap: int) -> TextSplitter:
    return TextSplitter.from_callback(tokens, max_tokens, overlap=overlap)


def split(text: str, chunk: ChunkConfig) -> list[str]:
    """Cut at the largest boundary that fits (paragraph, sentence, word); deterministic; blank text has no chunks."""
    if not text.strip():
        return []
    if tokens(text) <= chunk.max_tokens:
        return [text]
    return [piece for piece in _splitter(chunk.max_tokens, chunk.overlap).chunks(text) if piece.strip()]
