"""A report as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from evaluation import reranking
from evaluation.abstention import PRECISION
from evaluation.ranking import MEASURES
from evaluation.reranking import SIGNIFICANT


def show(report: Mapping[str, Any]) -> None:
    """Print a report."""
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"store {report['store']}, model {report['model']}, {report['questions']} questions")
    console.print(_search(report["search"]))
    console.print("* differs from dense by more than chance (paired randomisation test, p < 0.05)")
    if "reranking" in report:
        console.print(reranking.sentence(report["reranking"]))
    console.print(_abstention(report["abstention"]))
    if "answers" in report:
        console.print(_answers(report["answers"]))
    if "calibration" in report:
        held_out = report["calibration"]["held_out"]
        console.print(
            f"calibrated and kept; held out: recall@5 {held_out['found@5']:.3f} (dense {held_out['dense_found@5']:.3f}), "
            f"{held_out['answerable_kept']:.0%} of {held_out['answerable']} answerable ones kept, "
            f"{held_out['misses_refused']:.0%} of {held_out['misses']} others refused"
            f"{'' if held_out['misses_are_labelled'] else ' (made by taking rows away: label some that no row answers)'}"
        )
    elif not report["is_measured"]:
        console.print("nobody measured this model: `ask` abstains; --calibrate measures it")


def _search(groups: Mapping[str, Any]) -> Table:
    table = Table("questions", "way", *MEASURES, title="search")
    for group, figures in groups.items():
        for way, measures in figures["ways"].items():
            label = f"{group} ({figures['questions']})" if way == "dense" else ""
            table.add_row(label, way, *(_with_mark(measures[name]) for name in MEASURES))
    return table


def _with_mark(figure: Mapping[str, float]) -> str:
    return f"{figure['mean']:.3f}{'*' if figure['p'] < SIGNIFICANT else ''}"


def _abstention(figures: Mapping[str, Any]) -> Table:
    table = Table(
        "misses", "questions", "let through", f"recall at precision {PRECISION}", title="abstention",
        caption=f"{figures['refused']} of {figures['answerable']} answerable questions refused",
    )  # fmt: skip
    for kind, miss in figures["misses"].items():
        table.add_row(kind, str(miss["questions"]), str(miss["let_through"]), f"{miss['recall_at_precision']:.3f}")
    return table


def _answers(groups: Mapping[str, Any]) -> Table:
    shares = ("right", "abstains_rightly", "citation_precision", "supported_values")
    table = Table("questions", "answered", *(name.replace("_", " ") for name in shares), title="answers")
    for group, figures in groups.items():
        values = ("–" if figures[name] is None else f"{figures[name]:.3f}" for name in shares)
        table.add_row(f"{group} ({figures['questions']})", str(figures["answered"]), *values)
    return table
