"""How good answers are: right, cited rightly, and supported by what they cite. Pure but for asking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from evaluation.golden import key_of
from retrieval.answering.support import unsupported, values_of
from schemas.errors import PipelineError

if TYPE_CHECKING:
    from evaluation.golden import GoldenQuestion
    from retrieval.answering.ask import Answer, Assistant


def ask_all(
    assistant: Assistant, golden: Sequence[GoldenQuestion], on_done: Callable[[], object]
) -> list[tuple[GoldenQuestion, Answer | None]]:
    """Ask each question; None where it ends in an error."""
    answers: list[tuple[GoldenQuestion, Answer | None]] = []
    for question in golden:
        try:
            answers.append((question, assistant.ask(question.query)))
        except PipelineError:
            answers.append((question, None))
        on_done()
    return answers


def figures(answers: Sequence[tuple[GoldenQuestion, Answer | None]]) -> dict[str, Any]:
    """Shares, for all questions and by kind; None where there is nothing to count."""
    kinds = sorted({golden.kind for golden, _ in answers if golden.kind})
    groups = {"all": answers} | {kind: [question for question in answers if question[0].kind == kind] for kind in kinds}
    return {group: _figures(members) for group, members in groups.items() if members}


def _figures(answers: Sequence[tuple[GoldenQuestion, Answer | None]]) -> dict[str, Any]:
    answered = [(golden, answer) for golden, answer in answers if answer is not None and not answer.abstained]
    labelled = [golden for golden, _ in answers if golden.expected and golden.answer_contains]
    citations = [
        (hit.table, key_of(hit.key)) in golden.expected for golden, a in answered if golden.expected for hit in a.cites
    ]
    statements = [statement for _, answer in answered for statement in answer.draft.statements]
    values = sum(len(values_of(statement.text)) for statement in statements)
    missing = sum(len(unsupported(s.text, [hit.chunk_text for hit in s.cites])) for s in statements)
    unanswerable = [answer for golden, answer in answers if not golden.expected]
    return {
        "questions": len(answers),
        "errors": sum(answer is None for _, answer in answers),
        "answered": len(answered),
        "right": _share(sum(_is_right(golden, answer) for golden, answer in answered), len(labelled)),
        "abstains_rightly": _share(sum(a is not None and a.abstained for a in unanswerable), len(unanswerable)),
        "citation_precision": _share(sum(citations), len(citations)),
        "sentences": len(statements),
        "supported_values": _share(values - missing, values),
    }


def _is_right(golden: GoldenQuestion, answer: Answer) -> bool:
    """Whether it contains a labelled phrase and cites a labelled row."""
    says = any(phrase.casefold() in answer.text.casefold() for phrase in golden.answer_contains)
    return says and any((hit.table, key_of(hit.key)) in golden.expected for hit in answer.cites)


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
