"""Whether a sentence's numbers and names stand in the rows that it cites. Pure.

It compares values, not meanings: numbers in digits or in English words, codes, addresses, and words with a capital letter. A
value that no source holds is not supported, also one that was computed from what they hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal

from transforms.documents.stop_words import STOP_WORDS

_DASHES = "\\-\u2010\u2011\u2013"
"""Hyphens, and the dash of a range."""
_ADDRESS = re.compile(r"(?:https?://|www\.|data:|javascript:)[^\s)\]>\"']+|[\w.+-]+@[\w-]+(?:\.[\w-]+)+", re.IGNORECASE)
_TOKEN = re.compile(rf"\w+(?:[{_DASHES}:./,'\u2019]\w+)*")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_WITH_UNIT = re.compile(rf"(\d+(?:[.,]\d+)*)[{_DASHES}]?[^\W\d_]+")
_RANGE = re.compile(rf"\d+(?:[.,]\d+)*(?:[{_DASHES}:/]\d+(?:[.,]\d+)*)+")
_SEPARATORS = re.compile(rf"[{_DASHES}:./,'\u2019_]")
_GROUPS = re.compile(r"\d{1,3}(?:[.,]\d{3})+")

_SPELT_SMALL = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen"""
_SPELT_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_LARGE = {"hundred": 100, "thousand": 1_000, "million": 1_000_000}
_WORDS = {word: number for number, word in enumerate(_SPELT_SMALL.split())} | _LARGE
_WORDS |= {word: 10 * tens for tens, word in enumerate(_SPELT_TENS.split(), 2)}

_NO_NAMES = """yes also however according unfortunately please otherwise therefore everyone nobody someone one another every many
most"""
_INITIAL = STOP_WORDS["english"] | frozenset(_NO_NAMES.split())
"""Words that begin a sentence with a capital letter and are no names."""
_PRONOUN = frozenset({"I"})
_COPULAS = frozenset(
    {"is", "was", "are", "were", "has", "had", "can", "will", "leads", "runs", "owns", "does", "takes"}
)
"""After a capitalised first word, these make it the subject: a name, unless it is a word of the sources."""


def unsupported(sentence: str, sources: Sequence[str]) -> list[str]:
    """The numbers, codes, addresses and names of a sentence that no source holds, in the sentence's order."""
    text = "\n".join(sources)
    values = set(_values(text))
    words = {_plain(word) for token in _TOKEN.findall(text) for word in (token, *_SEPARATORS.split(token))}
    missing = [shown for value, shown in _shown_values(sentence) if value not in values]
    missing += [name for name in _names(sentence, words) if _plain(name) not in words]
    return list(dict.fromkeys(missing))


def values_of(sentence: str) -> list[str]:
    """The numbers, codes, addresses and names of a sentence, as `unsupported` looks at them."""
    return list(dict.fromkeys([*(shown for _, shown in _shown_values(sentence)), *_names(sentence, set())]))


def _values(text: str) -> Iterator[str]:
    return (value for value, _ in _shown_values(text))


def _shown_values(text: str) -> Iterator[tuple[str, str]]:
    """Each value in one form, and as it stands in the text."""
    for address in _ADDRESS.findall(text):
        yield address.casefold().rstrip(".,;:!?"), address
    rest = _ADDRESS.sub(" ", text)
    for token in _TOKEN.findall(rest):
        for value in _of_token(token):
            yield value, token
    yield from ((value, value.removeprefix("=")) for value in _spelt_out(rest))


def _of_token(token: str) -> list[str]:
    if not any(map(str.isdigit, token)):
        return []
    if _NUMBER.fullmatch(token):
        return [_number(token)]
    if with_unit := _WITH_UNIT.fullmatch(token):
        return [_number(with_unit[1])]
    if _RANGE.fullmatch(token):
        return [_number(part) for part in _NUMBER.findall(token)]
    return [_SEPARATORS.sub("", token).casefold()]


def _number(digits: str) -> str:
    """A number in one form: `1,000`, `1.000` and `1000` are one, and so are `2.50`, `2,5` and `2.5`."""
    last = max(digits.rfind("."), digits.rfind(","))
    if "." in digits and "," in digits:
        plain = f"{re.sub(r'[.,]', '', digits[:last])}.{digits[last + 1 :]}"
    else:
        grouped = _GROUPS.fullmatch(digits) and not digits.startswith("0")
        plain = re.sub(r"[.,]", "", digits) if grouped else digits.replace(",", ".")
    if plain.count(".") > 1:
        return plain
    number = format(Decimal(plain).normalize(), "f")
    return f"={number}"


def _spelt_out(text: str) -> Iterator[str]:
    """Numbers in English words; `one` alone is no number, as it is a pronoun more often."""
    run: list[str] = []
    for word in [*re.findall(r"[^\W_]+", text.casefold()), ""]:
        if word in _WORDS:
            run.append(word)
            continue
        if run and run not in (["one"], ["hundred"], ["thousand"], ["million"]):
            yield f"={_sum(run)}"
        run = run if word == "and" and run and run[-1] in _LARGE else []


def _sum(run: Sequence[str]) -> int:
    total = part = 0
    for word in run:
        if word == "hundred":
            part = max(part, 1) * 100
        elif word in _LARGE:
            total, part = total + max(part, 1) * _LARGE[word], 0
        else:
            part += _WORDS[word]
    return total + part


def _names(sentence: str, words: set[str]) -> Iterator[str]:
    """Words with a capital letter; of the first word of a sentence only what looks like a subject and is no common word."""
    tokens = [token for token in _TOKEN.findall(_ADDRESS.sub(" ", sentence)) if not any(map(str.isdigit, token))]
    for place, token in enumerate(tokens):
        if not token[0].isupper() or token.casefold() in _WORDS or token in _PRONOUN:
            continue
        if place == 0 and not token[1:2].isupper():
            following = tokens[1] if len(tokens) > 1 else ""
            subject = following.casefold() in _COPULAS or token.endswith(("'s", "\u2019s"))
            if not subject or _plain(token) in _INITIAL or _plain(token) in words:
                continue
        yield token


def _plain(word: str) -> str:
    return re.sub(r"['\u2019]s?$", "", word.casefold())
