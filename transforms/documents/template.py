"""A document's text: the template of its table, with the values of the row."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Any

from transforms.values import exact_json


def value_text(value: Any) -> str:
    """A column's value as a reader would write it; NULL is empty."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return exact_json.dumps(value, ascii_only=False) if isinstance(value, (bool, list, dict)) else str(value)


def render(template: str, values: Mapping[str, Any]) -> str:
    """The document's text. What no UTF-8 store takes becomes U+FFFD."""
    parts = []
    for literal, name, _, _ in Formatter().parse(template):
        parts.append(literal)
        if name:
            parts.append(value_text(values.get(name)))
    return exact_json.printable("".join(parts)).strip()
