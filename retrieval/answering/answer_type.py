"""The expected answer type of a question (a number, a time, a person), and whether a sentence holds one. Pure.

Known for English alone: a question of another language expects nothing, and loses nothing.
"""

from __future__ import annotations

import re
from typing import Literal

type AnswerType = Literal["number", "money", "time", "person"]

_NUMBER_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million half quarter twice once third
double"""
_CURRENCY = r"[€$£¥]|\b(?:euros?|cents?|dollars?|pounds?|francs?|yen|eur|usd|gbp|chf|percent|free)\b"
_CALENDAR = r"""\d|\b(?:(?:mon|tues|wednes|thurs|fri|satur|sun)days?|january|february|march|april|may|june|july|august
|september|october|november|december|noon|midnight|morning|afternoon|evening|night|spring|summer|autumn|winter|daily|weekly
|monthly|yearly|hours?|days?|weeks?|months?|years?|minutes?|o'clock)\b"""

_ASKS: tuple[tuple[AnswerType, str], ...] = (
    ("money", r"\bhow (?:much|expensive)\b.*\b(?:cost|pay|charge|price|spend|owe)"),
    ("money", r"\bwhat (?:does|do|did|will|would)\b.*\b(?:cost|pay|charge)"),
    ("money", r"\b(?:price|fee|fare|cost|deposit|surcharge|postage)s?\b"),
    ("time", r"\bwhen\b|\bhow (?:long|often|soon|early|late)\b|\buntil what\b"),
    ("time", r"\b(?:what|which) (?:time|day|date|month|year)\b"),
    ("number", r"\bhow (?:much|many|far|deep|high|tall|large|big|hot|cold|fast|heavy|loud|wide|old|strong|close)\b"),
    (
        "number",
        r"\bwhat (?:percentage|share|temperature|size|number|age|distance)\b|\b(?:maximum|minimum|at most|at least)\b",
    ),
    ("person", r"\bwhom?\b|\bwhose\b"),
)
"""The first that is found in a question says its type."""

_HOLDS: dict[AnswerType, re.Pattern[str]] = {
    "number": re.compile(rf"\d|\b(?:{'|'.join(_NUMBER_WORDS.split())})\b", re.IGNORECASE),
    "money": re.compile(_CURRENCY, re.IGNORECASE),
    "time": re.compile(_CALENDAR.replace("\n", ""), re.IGNORECASE),
    "person": re.compile(r"(?<=[a-z,] )[A-Z][a-z]+"),
}


def expected_type(question: str) -> AnswerType | None:
    """The type that a question in English asks for; None where its words do not say."""
    return next((kind for kind, asks in _ASKS if re.search(asks, question, re.IGNORECASE)), None)


def holds(kind: AnswerType | None, sentence: str) -> bool:
    """Whether a sentence holds a value of that type; False where no type is expected."""
    return kind is not None and _HOLDS[kind].search(sentence) is not None
