"""A chunk's sentences, each with the heading that says what it is about. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_BREAKS = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"')\]”]))\s+(?=[\"'“(\[]?(?:[A-Z0-9]|[^\x00-\x7f]))|\n+")
"""After the end of a sentence, where the next one begins with a capital, a digit or a letter beyond ASCII; and at every
line's end."""

_ABBREVIATIONS = re.compile(r"\b(?:e\.g|i\.e|etc|vs|approx|No|Nr|Mr|Mrs|Ms|Dr|St|max|min)\.$")
LONGEST_HEADING = 20
"""Words; a first line that is longer is text."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of a chunk."""

    place: int
    text: str
    heading: str

    @property
    def in_context(self) -> str:
        """The sentence with its heading: `It lasts three years` alone resembles no question."""
        return f"{self.heading}. {self.text}" if self.heading else self.text


def sentences_of(chunk_text: str) -> list[Sentence]:
    """Split a chunk. A short first line that an empty line follows is the heading of the rest, and no answer itself."""
    first, gap, rest = chunk_text.strip().partition("\n\n")
    heading = first.strip() if gap and len(first.split()) <= LONGEST_HEADING and not first.endswith(".") else ""
    body = rest if heading and rest.strip() else chunk_text
    return [Sentence(place, text, heading) for place, text in enumerate(_split(body))]


def _split(text: str) -> list[str]:
    parts: list[str] = []
    for part in (found.strip() for found in _BREAKS.split(text)):
        if parts and _ABBREVIATIONS.search(parts[-1]):
            parts[-1] = f"{parts[-1]} {part}"
        elif part:
            parts.append(part)
    return parts
