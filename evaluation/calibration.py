"""Thresholds of relevance and the weight of words, fitted to a model by labelled questions and judged on others. Pure.

Both are chosen from a grid by cross-validation: each fifth of the questions is judged by what the others chose, so the figures
are held out. What is kept is chosen by all questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.abstention import DEPTH
from retrieval.ranking.fusion import FUSION, Fusion, Relevance, Tuning
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from evaluation.runs import Asked

type Numbers = NDArray[np.float64]
type Flags = NDArray[np.bool_]
type Places = NDArray[np.int64]

LEAST_ANSWERABLE = 20
"""Questions with a row that answers, below which nothing is fitted."""
LEAST_MISSES = 10
"""Questions without one, below which misses are made: questions whose rows that answer are taken out of what is found."""
FOLDS = 5
SEED = 20_261_129
CERTAIN = 0.99
WORTH = 0.002
"""What another weight of words has to gain to replace the usual one."""

_FUSIONS = [FUSION, Fusion(0.0, 0.0, 1.0)] + [
    Fusion(weight, floor, full)
    for weight, floor, full in product((0.2, 0.35, 0.5, 0.75), (0.35, 0.45, 0.55), (0.7, 1.0))
]
"""No floor is lower: questions in the words of their answers do not show what a low one loses on others."""
_QUANTILES = np.linspace(0.05, 0.99, 24)
_ABOVE, _PER, _LEAST = (0.0, 0.06, 0.12, 0.2), (0.0, 0.2, 0.35, 0.5, 0.7), (0.02, 0.1, 0.25)
"""`base` above `alone`; `per_coverage`; the quantile of similarities that is `least`."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What was fitted, and how it did on questions that it was not fitted on."""

    tuning: Tuning
    held_out: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The JSON value that a store keeps."""
        return self.tuning.as_json() | {"held_out": self.held_out}


def calibrate(asked: Sequence[Asked]) -> Calibrated:
    """Fit both to these questions.

    Raises:
        ConfigurationError: fewer than `LEAST_ANSWERABLE` of them have a row that answers.
    """
    answerable = [question for question in asked if question.golden.expected]
    if len(answerable) < LEAST_ANSWERABLE:
        raise ConfigurationError(
            f"{len(answerable)} questions name a row that answers, and thresholds need {LEAST_ANSWERABLE}",
            condition="GOLDEN_TOO_FEW",
            hint="label more questions; `ragstream evaluate CONFIG --draft 50` proposes some from the rows",
        )
    fitting = _Fitting(asked, answerable)
    folds = _folds(len(answerable)), _folds(fitting.misses)
    judged = [fitting.held_out(positive, negative) for positive, negative in zip(*folds, strict=True)]
    everything = np.arange(len(answerable)), np.arange(fitting.misses)
    fusion = fitting.best_fusion(everything[0])
    relevance = fitting.best_relevance(fusion, *everything)
    means = {
        name: round(sum(fold[name] * fold["n"] for fold in judged) / len(answerable), 4)
        for name in ("found@5", "rr", "dense_found@5")
    }
    accepted, rejected = sum(fold["accepted"] for fold in judged), sum(fold["rejected"] for fold in judged)
    return Calibrated(
        Tuning(relevance, _FUSIONS[fusion]),
        {
            "questions": len(asked), "answerable": len(answerable), **means,
            "answerable_kept": round(accepted / len(answerable), 4), "misses": fitting.misses,
            "misses_refused": round(rejected / max(fitting.misses, 1), 4), "misses_are_labelled": fitting.labelled_misses,
        },
    )  # fmt: skip


class _Fitting:
    """The questions as numbers: for every fusion the rank of the first row that answers, and the best rows' two scores."""

    def __init__(self, asked: Sequence[Asked], answerable: Sequence[Asked]) -> None:
        missed = [question for question in asked if not question.golden.expected]
        self.labelled_misses = len(missed) >= LEAST_MISSES
        self.kinds = [question.golden.kind for question in answerable]
        tables = [_table(question) for question in answerable]
        self._ranks = np.array([[_rank(table, fusion) for table in tables] for fusion in _FUSIONS])
        without = [_table(question, without_expected=True) for question in answerable]
        self._tables = tables, [_table(question) for question in missed] if self.labelled_misses else without
        self.misses = len(self._tables[1])
        similarities = np.concatenate([table[0] for table in tables + self._tables[1] if len(table[0])])
        tops = np.array([table[0].max(initial=-1.0) for table in tables + self._tables[1]])
        self._grid = _grid(tops, similarities)
        self._accepting: dict[int, tuple[Flags, Flags]] = {}

    def best_fusion(self, members: Places) -> int:
        """The fusion with the best ranks, kind by kind; one that loses to similarity alone in any kind pays for it."""
        ranks, kinds = self._ranks[:, members], np.array([self.kinds[n] for n in members])
        recalled, reciprocal = (ranks > 0) & (ranks <= DEPTH), np.where(ranks > 0, 1 / np.maximum(ranks, 1), 0.0)
        gains, losses = [], []
        for kind in sorted(set(kinds)):
            of_kind = kinds == kind
            recall = recalled[:, of_kind].mean(axis=1)
            gains.append((recall + reciprocal[:, of_kind].mean(axis=1)) / 2)
            losses.append(np.maximum(0.0, recall[1] - recall))  # the second fusion is similarity alone
        objective = np.mean(gains, axis=0) - 2 * np.max(losses, axis=0)
        best = int(np.argmax(objective))
        return best if objective[best] > objective[0] + WORTH else 0

    def best_relevance(self, fusion: int, positive: Places, negative: Places) -> Relevance:
        """The thresholds that are right of most questions, those with an answer and those without counting alike."""
        accepted, let_through = self._accepted(fusion)
        right = accepted[:, positive].mean(axis=1) + (1 - let_through[:, negative].mean(axis=1) if len(negative) else 0)
        return self._relevance(int(np.argmax(right)))

    def held_out(self, positive: Places, negative: Places) -> dict[str, float]:
        """What the other questions choose, judged on these."""
        others = np.setdiff1d(np.arange(len(self.kinds)), positive), np.setdiff1d(np.arange(self.misses), negative)
        fusion = self.best_fusion(others[0])
        chosen = self._grid_place(self.best_relevance(fusion, *others))
        ranks, dense = self._ranks[fusion, positive], self._ranks[1, positive]
        accepted, let_through = self._accepted(fusion)
        return {
            "n": float(len(positive)),
            "found@5": float(((ranks > 0) & (ranks <= DEPTH)).mean()) if len(positive) else 0.0,
            "dense_found@5": float(((dense > 0) & (dense <= DEPTH)).mean()) if len(positive) else 0.0,
            "rr": float(np.where(ranks > 0, 1 / np.maximum(ranks, 1), 0.0).mean()) if len(positive) else 0.0,
            "accepted": float(accepted[chosen, positive].sum()),
            "rejected": float((~let_through[chosen, negative]).sum()),
        }

    def _accepted(self, fusion: int) -> tuple[Flags, Flags]:
        if fusion not in self._accepting:
            one, other = ([_best(table, _FUSIONS[fusion]) for table in tables] for tables in self._tables)
            self._accepting[fusion] = _accepts(one, self._grid), _accepts(other, self._grid)
        return self._accepting[fusion]

    def _relevance(self, place: int) -> Relevance:
        alone, base, per, least = (round(float(value), 4) for value in self._grid[place])
        return Relevance(alone, base, per, least, CERTAIN)

    def _grid_place(self, relevance: Relevance) -> int:
        wanted = (relevance.alone, relevance.base, relevance.per_coverage, relevance.least)
        return int(np.argmin(abs(self._grid - wanted).sum(axis=1)))


def _folds(size: int) -> list[Places]:
    return list(np.array_split(np.random.default_rng(SEED).permutation(size), FOLDS))


def _table(question: Asked, *, without_expected: bool = False) -> tuple[Numbers, Numbers, Flags, list[str]]:
    """Similarity, coverage, whether it answers, and document of each hit."""
    hits = [hit for hit in (*question.dense, *question.lexical) if not (without_expected and question.is_expected(hit))]
    return (
        np.array([hit.similarity for hit in hits], float),
        np.array([hit.coverage for hit in hits], float),
        np.array([question.is_expected(hit) for hit in hits], bool),
        [hit.document_id for hit in hits],
    )


def _scores(table: tuple[Numbers, Numbers, Flags, list[str]], fusion: Fusion) -> Numbers:
    similarity, coverage = table[0], table[1]
    share = np.clip((coverage - fusion.floor) / (fusion.full - fusion.floor), 0.0, 1.0)
    scores: Numbers = (similarity + fusion.weight * share) / (1 + fusion.weight)
    return scores


def _rank(table: tuple[Numbers, Numbers, Flags, list[str]], fusion: Fusion) -> int:
    """The rank of the first document that answers; 0 where none is found."""
    scores, answers = _scores(table, fusion), table[2]
    if not answers.any():
        return 0
    best = scores[answers].max()
    return 1 + len({table[3][n] for n in np.flatnonzero((scores > best) & ~answers)})


def _best(table: tuple[Numbers, Numbers, Flags, list[str]], fusion: Fusion) -> Numbers:
    """Similarity and coverage of the best documents, best first; rows of -1 where there are fewer."""
    best: dict[str, int] = {}
    scores = _scores(table, fusion)
    for place in np.argsort(-scores, kind="stable"):
        best.setdefault(table[3][place], int(place))
        if len(best) == DEPTH:
            break
    rows = [(table[0][n], table[1][n]) for n in best.values()]
    return np.array(rows + [(-1.0, 0.0)] * (DEPTH - len(rows)))


def _grid(tops: Numbers, similarities: Numbers) -> Numbers:
    """Candidates of (alone, base, per_coverage, least), on the scale of the model's own similarities."""
    alone, least = np.quantile(tops, _QUANTILES), np.quantile(similarities, _LEAST)
    return np.array([(a, a + above, per, low) for a, above, per, low in product(alone, _ABOVE, _PER, least)])


def _accepts(questions: Sequence[Numbers], grid: Numbers) -> Flags:
    """For each candidate and question, whether any of the question's best documents is relevant."""
    accepted = np.zeros((len(grid), len(questions)), bool)
    alone, base, per, least = (grid[:, column, None] for column in range(4))
    for place, rows in enumerate(questions):
        similarity, coverage = rows[None, :, 0], rows[None, :, 1]
        needed = np.maximum(least, np.minimum(alone, base - per * coverage))
        accepted[:, place] = ((similarity >= needed) | (coverage >= CERTAIN)).any(axis=1)
    return accepted
