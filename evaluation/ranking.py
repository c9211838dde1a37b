"""Recall, nDCG and reciprocal rank of rankings by ir-measures, and whether two differ by more than chance. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.golden import key_of

if TYPE_CHECKING:
    from evaluation.runs import Asked, Order

MEASURES = ("R@1", "R@5", "R@10", "nDCG@10", "RR")
"""Names of ir-measures. Any of several labelled rows answers a question, so recall counts questions: `Success@k`."""
ROUNDS = 10_000
"""Random assignments of a test; p is known to 0.005."""
SEED = 20_261_129


@dataclass(frozen=True, slots=True)
class Compared:
    """The mean of a measure for two ways, and the probability of so large a difference where there is none."""

    difference: float
    p: float


type Measured = Mapping[str, list[float]]
"""Each measure for each question that a row answers, in their order."""


def measured(asked: Sequence[Asked], rankings: Mapping[str, Sequence[Order]]) -> dict[str, Measured]:
    """What every way of ranking is worth."""
    return {way: _measured(asked, orders) for way, orders in rankings.items()}


def _measured(asked: Sequence[Asked], orders: Sequence[Order]) -> Measured:
    import ir_measures
    from ir_measures import RR, Success, nDCG

    named = {"R@1": Success @ 1, "R@5": Success @ 5, "R@10": Success @ 10, "nDCG@10": nDCG @ 10, "RR": RR}
    answerable = [
        (str(n), question, hits)
        for n, (question, hits) in enumerate(zip(asked, orders, strict=True))
        if question.golden.expected
    ]
    labels = [
        ir_measures.Qrel(number, _name(*row), 1)
        for number, question, _ in answerable
        for row in sorted(question.golden.expected)
    ]
    run = [
        ir_measures.ScoredDoc(number, _name(hit.table, key_of(hit.key)), float(-place))
        for number, _, hits in answerable
        for place, hit in enumerate(hits)
    ]
    values: dict[tuple[str, str], float] = {
        (str(value.measure), value.query_id): value.value
        for value in ir_measures.iter_calc([*named.values()], labels, run)
    }
    return {
        name: [values.get((str(measure), number), 0.0) for number, *_ in answerable] for name, measure in named.items()
    }


def compared(one: Sequence[float], other: Sequence[float]) -> Compared:
    """A paired randomisation test (two-sided, seeded): which of a question's two values is whose is drawn by lot."""
    differences = np.asarray(one, float) - np.asarray(other, float)
    if not differences.any():
        return Compared(0.0, 1.0)
    observed = abs(differences.mean())
    signs = np.random.default_rng(SEED).choice((-1.0, 1.0), (ROUNDS, len(differences)))
    extreme = int(np.count_nonzero(abs((signs * differences).mean(axis=1)) >= observed - 1e-12))
    return Compared(float(differences.mean()), (extreme + 1) / (ROUNDS + 1))


def figures(asked: Sequence[Asked], values: Mapping[str, Measured]) -> dict[str, Any]:
    """The means of every way, for all questions and by kind, each with its comparison to `dense`."""
    return {
        group: {
            "questions": len(members),
            "ways": {
                way: {
                    name: _figure([by_question[n] for n in members], [values["dense"][name][n] for n in members])
                    for name, by_question in of_way.items()
                }
                for way, of_way in values.items()
            },
        }
        for group, members in groups_of(asked).items()
    }


def groups_of(asked: Sequence[Asked]) -> dict[str, Sequence[int]]:
    """The places among the questions that a row answers: of all, and of each kind."""
    kinds = [question.golden.kind for question in asked if question.golden.expected]
    groups: dict[str, Sequence[int]] = {"all": range(len(kinds))} if kinds else {}
    return groups | {kind: [n for n, other in enumerate(kinds) if other == kind] for kind in sorted(set(kinds)) if kind}


def _figure(own: Sequence[float], dense: Sequence[float]) -> dict[str, float]:
    difference = compared(own, dense)
    return {
        "mean": round(float(np.mean(own)), 4), "to_dense": round(difference.difference, 4), "p": round(difference.p, 4)
    }  # fmt: skip


def _name(table: str, key: str) -> str:
    return f"{table} {key}"
