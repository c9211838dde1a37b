"""The languages of tables, by names that PostgreSQL, Snowball and OpenSearch share."""

from __future__ import annotations

from typing import Literal

type Language = Literal[
    "simple", "arabic", "armenian", "basque", "catalan", "danish", "dutch", "english", "finnish", "french", "german", "greek",
    "hindi", "hungarian", "indonesian", "irish", "italian", "lithuanian", "norwegian", "portuguese", "romanian", "russian",
    "spanish", "swedish", "turkish",
]  # fmt: skip
"""`simple` takes words as they stand: for texts of several languages, or of one that is not listed."""
