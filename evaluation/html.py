"""A report as one HTML file without scripts: bars of what each way finds, and risk against coverage. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from evaluation.ranking import MEASURES
from evaluation.reranking import sentence

_COLOURS = ("#4269d0", "#efb118", "#3ca951", "#ff725c", "#a463f2")
_STYLE = """body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1b1e23}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #dde1e6}
td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}svg{max-width:100%;height:auto}
text{font:12px system-ui,sans-serif;fill:#1b1e23}.note{color:#5b6470}"""
_CURVES_SHOW = (
    "From the surest question on: the share of those answered that no row found answers. The lower, the better."
)
_P_SHOWS = "p: how probable so large a difference to dense is by chance alone (paired randomisation test)."
_BAR, _GAP, _LEFT = 16, 18, 150
_SIDE = 320


def page(report: Mapping[str, Any]) -> str:
    """The page. Everything from the report is escaped; nothing is fetched."""
    parts = [
        f"<h1>{escape(report['store'])}, {escape(report['model'])}</h1>",
        f"<p class=note>{report['questions']} labelled questions; model fingerprint {escape(report['fingerprint'])}</p>",
        "<h2>What each way to search finds: recall@5</h2>", _bars(report["search"]), f"<p class=note>{_P_SHOWS}</p>",
        _search(report["search"]),
        f"<p>{escape(sentence(report['reranking']))}</p>" if "reranking" in report else "",
        "<h2>Risk against coverage</h2>",
        f"<p class=note>{_CURVES_SHOW}</p>",
        _curves(report["abstention"]["misses"]), _misses(report["abstention"]),
    ]  # fmt: skip
    if "answers" in report:
        parts += ["<h2>Answers</h2>", _answers(report["answers"])]
    if "calibration" in report:
        parts += ["<h2>Calibration, on questions held out</h2>", _pairs(report["calibration"]["held_out"])]
    title = escape(f"{report['store']}: evaluation")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n<body>{"".join(parts)}</body></html>\n'


def _bars(groups: Mapping[str, Any]) -> str:
    drawn: list[str] = []
    top = 0
    for group, figures in groups.items():
        drawn.append(_text(0, top + _BAR, f"{group} ({figures['questions']})"))
        for place, (way, measures) in enumerate(figures["ways"].items()):
            mean = measures["R@5"]["mean"]
            colour = _COLOURS[place % len(_COLOURS)]
            drawn.append(f'<rect x="{_LEFT}" y="{top}" width="{400 * mean:.1f}" height="{_BAR - 3}" fill="{colour}"/>')
            drawn.append(_text(_LEFT + 400 * mean + 6, top + _BAR - 4, f"{way} {mean:.3f}"))
            top += _BAR
        top += _GAP
    return f'<svg viewBox="0 0 700 {top}" width="700" role="img" aria-label="recall at 5 by way">{"".join(drawn)}</svg>'


def _curves(misses: Mapping[str, Any]) -> str:
    drawn = [
        f'<path d="M40 10V{_SIDE + 10}H{_SIDE + 240}" fill="none" stroke="#5b6470"/>', _text(200, _SIDE + 30, "coverage"),
        _text(44, 20, "risk 1"), _text(10, _SIDE + 14, "0"),
    ]  # fmt: skip
    for place, (kind, miss) in enumerate(misses.items()):
        colour = _COLOURS[place % len(_COLOURS)]
        points = " ".join(f"{40 + x * (_SIDE + 160):.1f},{_SIDE + 10 - y * _SIDE:.1f}" for x, y in miss["curve"])
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn.append(f'<rect x="{_SIDE + 170}" y="{20 + 20 * place}" width="12" height="12" fill="{colour}"/>')
        drawn.append(_text(_SIDE + 188, 31 + 20 * place, f"{kind} ({miss['questions']})"))
    size = f'viewBox="0 0 {_SIDE + 300} {_SIDE + 40}" width="{_SIDE + 300}"'
    return f'<svg {size} role="img" aria-label="risk against coverage">{"".join(drawn)}</svg>'


def _search(groups: Mapping[str, Any]) -> str:
    rows = [
        [group if way == "dense" else "", way, *(f"{m[name]['mean']:.3f} (p {m[name]['p']:.3f})" for name in MEASURES)]
        for group, figures in groups.items()
        for way, m in figures["ways"].items()
    ]
    return _table(["questions", "way", *MEASURES], rows)


def _misses(figures: Mapping[str, Any]) -> str:
    rows = [
        [kind, str(miss["questions"]), str(miss["let_through"]), f"{miss['recall_at_precision']:.3f}"]
        for kind, miss in figures["misses"].items()
    ]
    refused = f"<p>{figures['refused']} of {figures['answerable']} answerable questions are refused.</p>"
    return refused + _table(["misses", "questions", "let through", "recall at precision 0.9"], rows)


def _answers(groups: Mapping[str, Any]) -> str:
    names = [name for name in next(iter(groups.values())) if name != "questions"]
    rows = [
        [group, str(figures["questions"]), *("–" if figures[n] is None else str(figures[n]) for n in names)]
        for group, figures in groups.items()
    ]
    return _table(["group", "questions", *(name.replace("_", " ") for name in names)], rows)


def _pairs(values: Mapping[str, Any]) -> str:
    return _table(["", ""], [[name.replace("_", " "), str(value)] for name, value in values.items()])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
