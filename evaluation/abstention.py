"""How well an assistant knows what it cannot answer: risk against coverage, for near and far misses apart. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from evaluation.runs import Asked
    from retrieval.ranking.fusion import Tuning

DEPTH = 5
"""Rows that an answer may draw on."""
PRECISION = 0.9
"""The precision of abstaining at which its recall is told."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far the best row of a question is from its threshold, and whether an answer from the rows would be right."""

    margin: float
    """Similarity above what is needed; below 0 the assistant abstains."""
    is_answerable: bool
    is_found: bool
    """Whether a row that answers is among those that an answer may draw on."""
    kind: str


def verdicts(asked: Sequence[Asked], tuning: Tuning) -> list[Verdict]:
    """The verdict on each question."""
    labelled = []
    for question in asked:
        ranked = question.fused(tuning.fusion)[:DEPTH]
        margins = [r.hit.similarity - tuning.relevance.needed(r.hit.coverage) for r in ranked]
        labelled.append(
            Verdict(
                max(margins, default=-2.0),
                bool(question.golden.expected),
                any(question.is_expected(r.hit) for r in ranked),
                question.golden.kind,
            )
        )
    return labelled


def figures(judged: Sequence[Verdict]) -> dict[str, Any]:
    """What the thresholds do, the curve, and the recall of abstaining at `PRECISION`; for all and for each kind of miss."""
    answerable = [verdict for verdict in judged if verdict.is_answerable]
    misses = [verdict for verdict in judged if not verdict.is_answerable]
    kinds = sorted({verdict.kind for verdict in misses if verdict.kind})
    groups = {"all": misses} | {kind: [v for v in misses if v.kind == kind] for kind in kinds}
    return {
        "answerable": len(answerable),
        "refused": sum(verdict.margin < 0 for verdict in answerable),
        "misses": {
            kind: {
                "questions": len(missed),
                "let_through": sum(verdict.margin >= 0 for verdict in missed),
                "recall_at_precision": recall_at_precision(answerable, missed),
                "curve": curve([*answerable, *missed]),
            }
            for kind, missed in groups.items()
            if missed
        },
    }


def recall_at_precision(answerable: Sequence[Verdict], missed: Sequence[Verdict]) -> float:
    """The greatest share of `missed` that one threshold abstains from, where `PRECISION` of all it abstains from are of them."""
    best = 0.0
    for threshold in sorted({verdict.margin for verdict in missed}):
        right = sum(verdict.margin <= threshold for verdict in missed)
        wrong = sum(verdict.margin <= threshold for verdict in answerable)
        if right / (right + wrong) >= PRECISION:
            best = max(best, right / len(missed))
    return round(best, 4)


def curve(judged: Sequence[Verdict]) -> list[tuple[float, float]]:
    """Points (share of questions answered, share of these answered without a row that answers), from the surest on."""
    ordered = sorted(judged, key=lambda verdict: -verdict.margin)
    wrong = np.cumsum([not verdict.is_found for verdict in ordered])
    last = [n for n, verdict in enumerate(ordered) if n + 1 == len(ordered) or ordered[n + 1].margin < verdict.margin]
    return [(round((n + 1) / len(ordered), 4), round(float(wrong[n]) / (n + 1), 4)) for n in last]
