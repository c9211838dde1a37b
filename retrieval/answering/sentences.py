"""The sentences of a chunk, each with its heading. Pure, and linear in the text.

Most text in databases was wrapped at some width by an editor or a mail client, so the end of a line does not end a
sentence. Lines are separate at empty lines, between the items of a list, the fields of a form, the rows of a table, the entries
of a log, the lines of code, and after a line much shorter than the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

_STOPS = ".!?…\u061f\u06d4\u0964\u0965\u0589\u1362"
"""Latin, Arabic, Urdu, Devanagari, Armenian and Ethiopic: white space follows."""
_WIDE_STOPS = "。\uff01\uff1f\uff61"
"""Chinese and Japanese: no white space follows."""
_CLOSED, _WIDE_CLOSED = "\"'”’»)\\]", "」』】》”’\uff09\u3015"
_COMMAS = (",", ";", "、", "\uff0c")

_ENDS = re.compile(
    rf"(?:(?<=[{_STOPS}])|(?<=[{_STOPS}][{_CLOSED}])|(?<=[{_STOPS}][{_CLOSED}]{{2}}))\s+"
    r"(?=[\"'“«„(\[¿¡]{0,3}(?P<next>[A-Z0-9]|[^\x00-\x7f]))"
    rf"|(?<=[{_WIDE_STOPS}])(?![{_WIDE_CLOSED}{_WIDE_STOPS}])"
    rf"|(?<=[{_WIDE_STOPS}])[{_WIDE_CLOSED}]{{1,3}}(?![と、\uff0c])"
)
"""The end of a sentence: a full stop and white space before anything but a small letter, or a Chinese or Japanese full stop,
unless the quotation that it ends goes on."""

_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|approx|No|Nr|Mr|Mrs|Ms|Dr|St|max|min)\.$")
_LONGEST_ABBREVIATION = 8

LONGEST_HEADING = 20
"""Words of a heading at most."""
_WIDEST_HEADING = 160
"""Characters of a heading at most, for scripts without spaces."""

_FENCE = re.compile(r"\s*(?:```|~~~)[^`]*$")
_RULE = re.compile(r"[\s\-=_*~#.|+:>]*$")
_INDENT = "    "
_PROSE_WIDTH = 60
"""Characters; shorter indented lines are code."""
_HALF = 0.5
"""The share of the widest line up to which a line with the next word was ended by its writer, not by a wrap."""

_ENTRY = re.compile(r"\s*(?:[-*+•‣◦▪·]\s|#{1,6}\s|\|)")
"""A bullet, a heading, a row of a table."""
_FIRST_NUMBER = re.compile(r"\s*\(?1[.)]\s")
"""Only the number 1 begins a list, as a wrapped sentence may also end in a number at the start of a line (CommonMark 0.31,
section 5.2, has the same rule)."""
_LIKE_THE_FIRST = (
    re.compile(r"\s*\(?(?:\d{1,3}|[a-z])[.)]\s"),
    re.compile(r"\s*[A-ZÀ-ÖØ-Þ][\w ./()-]{0,30}:(?:\s|$)"),
    re.compile(r"\s*\[?\d{1,4}[-/.:]\d{1,2}[-/.:]\d"),
)
"""A number, a field's label, a date or a time begins an entry if the entry before begins with one too."""

_UNSPACED = re.compile(
    r"[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)
"""Characters of scripts without spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, Chinese, Japanese."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of a chunk."""

    place: int
    text: str
    heading: str

    @property
    def in_context(self) -> str:
        """The sentence after its heading, as `It lasts three years` alone resembles no question."""
        return f"{self.heading}. {self.text}" if self.heading else self.text


def sentences_of(chunk_text: str) -> list[Sentence]:
    """Split a chunk. A short first paragraph is the heading of the rest, and no sentence."""
    paragraphs = [list(_passages(lines)) for lines in _paragraphs(chunk_text)]
    heading = paragraphs[0][0] if len(paragraphs) > 1 and _is_heading(*paragraphs[0]) else ""
    texts = (text for passages in paragraphs[bool(heading) :] for passage in passages for text in _split(passage))
    return [Sentence(place, text, heading) for place, text in enumerate(texts)]


def split(text: str) -> list[str]:
    """The sentences of a text that has no heading."""
    return [sentence for lines in _paragraphs(text) for passage in _passages(lines) for sentence in _split(passage)]


def _is_heading(first: str, *others: str) -> bool:
    short = len(first.split()) <= LONGEST_HEADING and len(first) <= _WIDEST_HEADING
    return short and not others and not first.endswith((".", "。"))


def _paragraphs(text: str) -> list[list[str]]:
    """Groups of lines between empty lines, rules and code fences; fenced code is indented instead."""
    paragraphs: list[list[str]] = [[]]
    fenced = False
    for line in text.splitlines():
        fence = _FENCE.match(line) is not None
        fenced ^= fence
        if not fence and not _RULE.match(line):
            paragraphs[-1].append(f"{_INDENT}{line}" if fenced else line)
        elif paragraphs[-1]:
            paragraphs.append([])
    return [lines for lines in paragraphs if lines]


def _passages(lines: Sequence[str]) -> Iterator[str]:
    """The lines of a paragraph, joined where they were wrapped."""
    width = max(map(len, lines))
    code = all(line.startswith((_INDENT, "\t")) for line in lines)
    first, parts = lines[0], [lines[0].strip()]
    for line, following in pairwise(lines):
        more = following.strip()
        filled = len(line.rstrip()) + 1 + len(more.split(maxsplit=1)[0])
        broken_off = width < _PROSE_WIDTH or filled <= width if code else _was_broken_off(line, more, filled / width)
        if broken_off or _begins_entry(first, line, following, had_room=filled <= width):
            yield "".join(parts)
            first, parts = following, [more]
        else:
            more = more.lstrip("> ") if _is_quoted(line) else more
            parts += [_between(line.rstrip(), more), more]
    yield "".join(parts)


def _begins_entry(first: str, line: str, following: str, *, had_room: bool) -> bool:
    if _ENTRY.match(following) or line.lstrip().startswith("#") or _is_quoted(line) != _is_quoted(following):
        return True
    if _FIRST_NUMBER.match(following) and (had_room or line.rstrip().endswith((".", ":", "!", "?"))):
        return True
    return any(shape.match(first) and shape.match(following) for shape in _LIKE_THE_FIRST)


def _was_broken_off(line: str, more: str, filled: float) -> bool:
    """Whether the writer ended a line: no small letter follows, and with the next word it would be at most half full."""
    begins = next((character for character in more if character.isalnum()), "")
    return filled <= _HALF and begins.isalpha() and not begins.islower() and not line.rstrip().endswith(_COMMAS)


def _is_quoted(line: str) -> bool:
    return line.lstrip().startswith(">")


def _between(before: str, after: str) -> str:
    if _UNSPACED.match(before[-1:]) or _UNSPACED.match(after):
        return ""
    hyphenated = before.endswith("-") and before[-2:-1].isalpha() and after[:1].isalpha()
    return "" if hyphenated else " "


def _split(passage: str) -> Iterator[str]:
    begin = seen = 0
    lettered = False
    for end in _ENDS.finditer(passage):
        lettered = lettered or any(map(str.isalpha, passage[seen : end.start()]))
        seen = end.start()
        follows = end["next"]
        short_form = _ABBREVIATION.search(passage[max(begin, seen - _LONGEST_ABBREVIATION) : seen])
        if lettered and not short_form and not (follows and follows.islower()):
            yield passage[begin : end.end()].strip()
            begin, lettered = end.end(), False
    if rest := passage[begin:].strip():
        yield rest
