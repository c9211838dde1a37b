"""What the MCP tools do with what the assistant gives."""

from __future__ import annotations

import json
import threading
from decimal import Decimal
from typing import Any

import pytest

from integrations.mcp.messages import AskArguments, SearchArguments
from integrations.mcp.tools import MOST_BYTES, TOOLS, TooLargeError
from schemas.caller import ANYONE

FRESH = {"searchable_as_of": None, "lag_seconds": None}
LONG = {"text": "x" * 9_000, "citations": [], "unsupported": []}


class Verbose:
    """An assistant whose rows and answers are long."""

    def search(self, text: str, k: int, scope: object) -> dict[str, Any]:
        key = {"price": Decimal("1.50"), "number": 10**30, "name": "a\ud800"}
        results = [{"chunk_text": "x" * 9_000, "score": 1 / (at + 1), "key": key} for at in range(k)]
        return {"query_id": None, "abstained": False, "results": results, "freshness": FRESH}

    def ask(self, question: str, scope: object, *, cancelled: threading.Event) -> dict[str, Any]:
        return {
            "answer": "", "abstained": False, "answerer": "x", "sentences": [LONG] * 30, "citations": [], "facts": [],
            "freshness": FRESH,
        }  # fmt: skip


def test_what_is_too_long_for_a_model_is_cut_or_refused() -> None:
    search, ask, _ = TOOLS
    answer = search.call(Verbose(), SearchArguments(query="q", k=50), ANYONE, threading.Event())  # type: ignore[arg-type] # as one
    assert (answer["truncated"], len(answer["results"])) == (True, 21)
    assert len(json.dumps(answer)) <= MOST_BYTES
    assert answer["results"][0]["key"] == {"price": "1.50", "number": 10**30, "name": "a\ufffd"}
    assert answer["results"][0]["score"] == 1
    assert not search.call(Verbose(), SearchArguments(query="q"), ANYONE, threading.Event())["truncated"]  # type: ignore[arg-type] # as one
    with pytest.raises(TooLargeError):
        ask.call(Verbose(), AskArguments(question="q"), ANYONE, threading.Event())  # type: ignore[arg-type] # as one
