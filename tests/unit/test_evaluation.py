"""The figures of an evaluation on rankings made by hand, and what a calibration makes of similarities on another scale."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation import abstention, html, ranking, reranking
from evaluation.calibration import LEAST_ANSWERABLE, calibrate
from evaluation.evaluate import questions_of
from evaluation.golden import GoldenQuestion, key_of
from evaluation.runs import Asked, ways
from reranking.errors import RerankingUnavailableError
from retrieval.ranking.fusion import FUSION, MINILM, Tuning
from schemas.errors import ConfigurationError
from sinks.search import Hit

T = "public.t"


def hit(number: int, similarity: float, coverage: float = 0.0) -> Hit:
    return Hit(f"d{number}", T, {"id": number}, f"d{number}/0", 0, "text", {}, similarity, coverage)


def golden(*numbers: int, kind: str = "") -> GoldenQuestion:
    return GoldenQuestion("question", frozenset((T, key_of({"id": n})) for n in numbers), kind)


def test_measures_are_those_of_the_field() -> None:
    asked = [
        Asked(golden(1), [hit(1, 0.9), hit(2, 0.8)], []),
        Asked(golden(2, 9), [hit(1, 0.9), hit(2, 0.8)], []),
        Asked(golden(7), [hit(1, 0.9)], []),
        Asked(golden(), [hit(1, 0.9)], []),
    ]
    measures = ranking.measured(asked, {"dense": [question.dense for question in asked]})["dense"]
    assert measures["R@1"] == [1.0, 0.0, 0.0]
    assert measures["R@5"] == [1.0, 1.0, 0.0]
    assert measures["RR"] == [1.0, 0.5, 0.0]
    gain = (1 / np.log2(3)) / (1 + 1 / np.log2(3))
    assert measures["nDCG@10"] == pytest.approx([1.0, gain, 0.0])


def test_a_difference_is_told_from_chance() -> None:
    better, worse = [1.0] * 30, [0.0] * 20 + [1.0] * 10
    assert ranking.compared(better, worse).p < 0.001
    assert ranking.compared(better, better) == ranking.Compared(0.0, 1.0)
    assert ranking.compared([1.0, 0.0], [0.0, 1.0]).p == 1.0
    assert ranking.compared(better, worse) == ranking.compared(better, worse)
    assert ranking.compared([1.0, 1.0], [0.0, 0.0]).p == pytest.approx(0.5, abs=0.03)


def test_abstention_is_judged_for_near_and_far_misses_apart() -> None:
    sure, wrong, near, far = (
        abstention.Verdict(margin, answerable, is_found, kind)
        for margin, answerable, is_found, kind in [
            (0.2, True, True, ""), (0.1, True, False, ""), (0.05, False, False, "near"), (-0.3, False, False, "far"),
        ]
    )  # fmt: skip
    judged = [sure, sure, wrong, replace(sure, margin=-0.1), near, far]
    figures = abstention.figures(judged)
    assert (figures["answerable"], figures["refused"]) == (4, 1)
    assert {kind: miss["let_through"] for kind, miss in figures["misses"].items()} == {"all": 1, "near": 1, "far": 0}
    assert figures["misses"]["far"]["recall_at_precision"] == 1.0
    assert figures["misses"]["near"]["recall_at_precision"] == 0.0
    curve = figures["misses"]["far"]["curve"]
    assert curve[0] == (0.4, 0.0)
    assert curve[-1] == (1.0, 0.4)


def made(scale: float, shift: float) -> list[Asked]:
    """Questions on a scale of similarity: answerable ones whose row is nearer, or that share its words; and others."""
    drawn = np.random.default_rng(7)
    asked = []
    for number in range(60):
        others = [hit(100 + n, shift + scale * value) for n, value in enumerate(drawn.uniform(0.0, 0.4, 8))]
        if number % 3 == 0:
            right = hit(number, shift + scale * 0.3, 0.9)
        else:
            right = hit(number, shift + scale * float(drawn.uniform(0.6, 0.9)))
        asked.append(Asked(golden(number, kind="words" if number % 3 == 0 else "meaning"), [*others, right], []))
        asked.append(Asked(golden(kind="far"), others, []))
    return asked


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.25, 0.6)])
def test_thresholds_follow_the_scale_of_the_model(scale: float, shift: float) -> None:
    asked = made(scale, shift)
    calibrated = calibrate(asked)
    held_out = calibrated.held_out
    assert held_out["answerable_kept"] >= 0.95
    assert held_out["misses_refused"] >= 0.9
    assert held_out["found@5"] >= held_out["dense_found@5"]
    figures = abstention.figures(abstention.verdicts(asked, calibrated.tuning))
    assert (figures["refused"] <= 3, figures["misses"]["far"]["let_through"] <= 3) == (True, True)
    assert calibrate(asked) == calibrated
    json.dumps(calibrated.as_json(), allow_nan=False)


def test_another_models_thresholds_would_have_guessed() -> None:
    judged = abstention.figures(abstention.verdicts(made(0.25, 0.6), Tuning(MINILM)))
    assert judged["misses"]["far"]["let_through"] == 60


def test_misses_are_made_where_none_are_labelled() -> None:
    answerable = [question for question in made(1.0, 0.0) if question.golden.expected]
    calibrated = calibrate(answerable)
    assert not calibrated.held_out["misses_are_labelled"]
    assert calibrated.held_out["misses_refused"] >= 0.9
    with pytest.raises(ConfigurationError, match=f"thresholds need {LEAST_ANSWERABLE}"):
        calibrate(answerable[:10])


class Turned:
    """A reranker that turns the order round, and is away for some questions."""

    model, candidates = "turned", 25

    def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        if query == "away":
            raise RerankingUnavailableError("away", hint="")
        return [float(place) for place in range(len(texts))]

    def check(self) -> None: ...


@pytest.mark.parametrize(
    ("last", "first", "is_gain"),
    [(20, 0, True), (0, 20, False), (40, 5, True), (40, 9, False), (1, 0, False), (0, 0, False)],
)
def test_a_reranker_is_a_gain_where_no_kind_of_question_loses(last: int, first: int, is_gain: bool) -> None:  # noqa: FBT001
    rows = [hit(1, 0.9), hit(2, 0.8)]
    asked = [Asked(golden(2, kind="own"), rows, [])] * last + [Asked(golden(1, kind="other"), rows, [])] * first
    timed = reranking.Timed(Turned())
    figures = reranking.figures(asked, ranking.measured(asked, ways(asked, FUSION, timed)), timed)
    assert figures["is_a_gain"] is is_gain
    assert figures["scored"] == last + first
    assert ("no gain" in reranking.sentence(figures)) is not is_gain
    assert set(figures["to_hybrid"]) == {n for n, some in (("all", asked), ("own", last), ("other", first)) if some}


def test_a_reranker_that_is_away_changes_nothing_and_is_said() -> None:
    asked = [replace(Asked(golden(2), [hit(1, 0.9), hit(2, 0.8)], []), golden=replace(golden(2), query="away"))]
    timed = reranking.Timed(Turned())
    figures = reranking.figures(asked, ranking.measured(asked, ways(asked, FUSION, timed)), timed)
    assert (figures["scored"], figures["ms_p50"], figures["is_a_gain"]) == (0, None, False)
    assert "never answered" in reranking.sentence(figures)


def test_the_picture_is_one_file_that_fetches_nothing_and_escapes_all() -> None:
    asked = made(1.0, 0.0)
    evil = "<script>alert(1)</script>"
    of_evil = [replace(question, golden=replace(question.golden, kind=evil)) for question in asked]
    report: dict[str, Any] = {
        "store": evil, "model": evil, "fingerprint": evil, "questions": 3,
        "search": ranking.figures(of_evil, ranking.measured(of_evil, ways(of_evil, FUSION))),
        "abstention": abstention.figures(abstention.verdicts(asked, Tuning(MINILM))),
        "calibration": calibrate(asked).as_json(),
    }  # fmt: skip
    page = html.page(report)
    assert "<script" not in page
    assert re.findall(r"(?:src|href)=|url\(|@import", page) == []
    assert page.count("<svg") == page.count("</svg>") == 2


def test_drafts_are_left_out_until_somebody_looked_at_them(tmp_path: Path) -> None:
    file = tmp_path / "golden.jsonl"
    line = {"query": "a", "expected": [{"table": T, "id": 1}], "kind": "own", "answer_contains": ["x"]}
    file.write_text(json.dumps(line | {"draft": True}) + "\n" + json.dumps(line))
    (question,), left_out = questions_of(str(file))
    assert left_out == 1
    assert question == GoldenQuestion("a", frozenset({(T, key_of({"id": 1}))}), "own", ("x",))
    file.write_text(json.dumps(line | {"draft": True}))
    with pytest.raises(ConfigurationError, match="every question is a draft"):
        questions_of(str(file))
