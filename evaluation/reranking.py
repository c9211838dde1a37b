"""Whether a reranker is worth its time: its order against the one it starts from. Pure but for the clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evaluation.ranking import MEASURES, compared, groups_of

if TYPE_CHECKING:
    from evaluation.ranking import Measured
    from evaluation.runs import Asked
    from reranking import Reranker

DECIDING_MEASURE = "nDCG@10"
"""The measure that decides: a reranker moves rows within the first ten."""
SIGNIFICANT = 0.05


class Timed:
    """A `Reranker` that notes how long each call took that gave scores."""

    def __init__(self, reranker: Reranker) -> None:
        self._reranker = reranker
        self.milliseconds: list[float] = []

    @property
    def model(self) -> str:
        """As `Reranker.model`."""
        return self._reranker.model

    @property
    def candidates(self) -> int:
        """As `Reranker.candidates`."""
        return self._reranker.candidates

    def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        """As `Reranker.rerank`."""
        began = time.perf_counter()
        scores = self._reranker.rerank(query, texts)
        self.milliseconds.append((time.perf_counter() - began) * 1000)
        return scores

    def check(self) -> None:
        """As `Reranker.check`."""
        self._reranker.check()


def figures(asked: Sequence[Asked], values: Mapping[str, Measured], timed: Timed) -> dict[str, Any]:
    """The differences of `reranked` to `hybrid` for all questions and by kind, and whether they are a gain.

    It is one where all questions gain by `DECIDING_MEASURE`, and no kind of them loses, by more than chance.
    """
    reranked, hybrid = values["reranked"], values["hybrid"]
    differences = {
        group: {
            name: compared([reranked[name][n] for n in members], [hybrid[name][n] for n in members])
            for name in MEASURES
        }
        for group, members in groups_of(asked).items()
    }
    deciding = {group: by_name[DECIDING_MEASURE] for group, by_name in differences.items()}
    significant = {group: result.difference for group, result in deciding.items() if result.p < SIGNIFICANT}
    is_gain = "all" in significant and min(significant.values()) > 0
    return {
        "model": timed.model,
        "candidates": timed.candidates,
        "scored": len(timed.milliseconds),
        "ms_p50": round(statistics.median(timed.milliseconds), 1) if timed.milliseconds else None,
        "to_hybrid": {
            group: {name: {"difference": round(c.difference, 4), "p": round(c.p, 4)} for name, c in by_name.items()}
            for group, by_name in differences.items()
        },
        "is_a_gain": is_gain,
    }


def sentence(report: Mapping[str, Any]) -> str:
    """The report in one sentence."""
    differences = ", ".join(
        f"{group} {by_name[DECIDING_MEASURE]['difference']:+.3f} (p {by_name[DECIDING_MEASURE]['p']:.3f})"
        for group, by_name in report["to_hybrid"].items()
    )
    verdict = "a gain" if report["is_a_gain"] else "no gain: leave `reranking` out"
    took = "never answered" if report["ms_p50"] is None else f"{report['ms_p50']:.0f} ms a question"
    return f"reranked by {report['model']} to hybrid, {DECIDING_MEASURE}: {differences}; {took}; {verdict}"
