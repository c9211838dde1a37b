"""Texts cut into chunks, and the estimate of their tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from semantic_text_splitter import TextSplitter

from transforms.documents.words import is_blank

if TYPE_CHECKING:
    from schemas.tables import ChunkConfig

BYTES_A_TOKEN = 4
"""English averages a little over four bytes a token in the tokenizers of Titan, Cohere and MiniLM; scripts of two and
three bytes a character come out near one token for two characters, which is on the safe side."""

WINDOW = 65_536
"""Most bytes of a text that go to the splitter at once."""

_CHUNKS_WITHOUT_BREAK = 4
"""Where a text goes on for longer without the end of a sentence or line, it is cut into windows of so many chunks: over such
text the splitter's time is quadratic (measured at 240 tokens: 1.5 s for 1 MB of base64, 1.7 s for 190 kB of Chinese)."""

_BREAKS = tuple(map(re.compile, (r"\n\s*\n", r"\n", r"[.!?。！？]\s*", r"\s")))  # noqa: RUF001 - full-width forms
"""Where a window may end, best first: paragraph, line, sentence, word."""
_ENDS = re.compile(r"\n|[!?。！？]|\.\s+(?=[A-Z])")  # noqa: RUF001 - full-width forms
"""What the splitter takes for the end of a sentence or line too (Unicode's annex 29)."""


def tokens(text: str) -> int:
    """Estimate a text's tokens without a tokenizer: models differ, and the cut must not change with the model."""
    return -(-len(text.encode("utf-8", "replace")) // BYTES_A_TOKEN)


@lru_cache
def _splitter(max_tokens: int, overlap: int) -> TextSplitter:
    return TextSplitter.from_callback(tokens, max_tokens, overlap=overlap)


def split(text: str, chunk: ChunkConfig) -> list[str]:
    """Cut at the largest boundary that fits (paragraph, sentence, word); deterministic; no chunk is blank.

    The time is linear in the text: one of more than `WINDOW` bytes is cut into windows first, and no chunk spans two.
    """
    if is_blank(text):
        return []
    if tokens(text) <= chunk.max_tokens:
        return [text]
    splitter = _splitter(chunk.max_tokens, chunk.overlap)
    return [part for window in _windows(text, chunk) for part in splitter.chunks(window) if not is_blank(part)]


def _windows(text: str, chunk: ChunkConfig) -> Iterator[str]:
    """Cut a long text; a shorter one is one window."""
    size = tokens(text) * BYTES_A_TOKEN
    if size <= WINDOW:
        yield text
        return
    letters = len(text) / size  # of a byte
    narrow = max(2, int(_CHUNKS_WITHOUT_BREAK * chunk.max_tokens * BYTES_A_TOKEN * letters))
    for window in windows_of(text, int(WINDOW * letters)):
        ends = [0, *(match.end() for match in _ENDS.finditer(window)), len(window)]
        is_broken = all(end - begin <= narrow for begin, end in pairwise(ends))
        yield from [window] if is_broken else windows_of(window, narrow)


def windows_of(text: str, size: int) -> Iterator[str]:
    """Cut a text into parts of at most `size` characters, each ending at the best break of its second half."""
    begin = 0
    while len(text) - begin > size:
        end = begin + size
        for kind in _BREAKS:
            if breaks := [match.end() for match in kind.finditer(text, begin + size // 2, end)]:
                end = breaks[-1]
                break
        yield text[begin:end]
        begin = end
    yield text[begin:]
