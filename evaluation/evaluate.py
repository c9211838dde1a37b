"""One evaluation of a store: what its searches and answers are worth, and the thresholds that follow, which the store keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from embeddings import open_embedder
from evaluation import abstention, answers, ranking, reranking, runs
from evaluation.calibration import calibrate
from evaluation.golden import read_golden
from retrieval.answering.ask import Assistant
from retrieval.commands import opened
from retrieval.parts import Pipeline, answerer
from retrieval.ranking.search import Searcher
from schemas.errors import ConfigurationError
from sinks import open_sink

if TYPE_CHECKING:
    from evaluation.calibration import Calibrated
    from evaluation.golden import GoldenQuestion
    from retrieval.ranking.active_index import ActiveIndex

type OnProgress = Callable[[str], object]


def questions_of(path: str) -> tuple[list[GoldenQuestion], int]:
    """The labelled questions of a file without drafts, and how many drafts there are.

    Raises:
        ConfigurationError: nobody looked at any of them.
    """
    every = read_golden(path)
    golden = [question for question in every if not question.is_draft]
    if not golden:
        raise ConfigurationError(
            f"{path}: every question is a draft", condition="GOLDEN_DRAFT",
            hint='correct each question and its rows, then take its "draft" away',
        )  # fmt: skip
    return golden, len(every) - len(golden)


def evaluate(
    config: Pipeline,
    golden: Sequence[GoldenQuestion],
    store: str | None,
    on_progress: OnProgress,
    *,
    keep: bool = False,
    with_answers: bool = True,
) -> dict[str, Any]:
    """Evaluate one store; returns a JSON object.

    With `keep`, fit the tuning to these questions and keep it in the store, or in all of the pipeline where none is named: it
    is the model's, and stores of one model give the same similarities.

    Figures of search, abstention and answers are of the tuning in use, which after `keep` is the new one: `calibration.held_out`
    tells how it does on questions that it was not fitted to. Repeated, it gives the same, and writes the same.
    """
    with opened(config, store) as index:
        searcher, calibrated, kept_in = index.searcher(), None, list[str]()
        asked = runs.ask_all(searcher, golden, lambda: on_progress("search"))
        if keep:
            calibrated = calibrate(asked)
            kept_in = _keep(config, index, calibrated, store)
            searcher = index.searcher()
        report = _report(index, searcher, asked)
        if calibrated is not None:
            report["calibration"] = calibrated.as_json() | {"stores": kept_in}
        if with_answers:
            assistant = Assistant(searcher, answerer(config, searcher, index.model))
            report["answers"] = answers.figures(answers.ask_all(assistant, golden, lambda: on_progress("answers")))
        return report


def _report(index: ActiveIndex, searcher: Searcher, asked: Sequence[runs.Asked]) -> dict[str, Any]:
    tuning = searcher.tuning
    judged = abstention.verdicts(asked, tuning)
    timed = reranking.Timed(searcher.reranker) if searcher.reranker else None
    values = ranking.measured(asked, runs.ways(asked, tuning.fusion, timed))
    reranked = {"reranking": reranking.figures(asked, values, timed)} if timed else {}
    return {
        "store": index.store.name,
        "model": index.model,
        "fingerprint": searcher.embedder.fingerprint,
        "questions": len(asked),
        "is_measured": tuning.is_measured,
        "tuning": tuning.as_json(),
        "search": ranking.figures(asked, values),
        "abstention": abstention.figures(judged),
        **reranked,
    }


def _keep(config: Pipeline, index: ActiveIndex, calibrated: Calibrated, named: str | None) -> list[str]:
    """Write the calibration beside the model's index version of each store, by compare-and-set; returns the stores' names."""
    assert config.embedding is not None  # noqa: S101 - an index is open
    own, fingerprint = open_embedder(config.embedding), index.searcher().embedder.fingerprint
    stores = [index.store] if named is not None else config.sinks
    kept_in = []
    for store in stores:
        with closing(open_sink(store, own.fingerprint, own.dimensions)) as sink:
            after = sink.change_index_versions(lambda versions: versions.calibrated(fingerprint, calibrated.as_json()))
        kept_in += [store.name] if after.of(fingerprint) is not None else []
    return kept_in
