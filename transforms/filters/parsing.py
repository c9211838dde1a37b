"""Conditions as they are written: `price >= 10`, `state in (a, b)`, `attrs.color = 'red'`, `closed is null`. Pure.

A name is a word, or anything in double quotes (`"odd column"`, `"a.b"`); names behind dots are members of a JSON column. A
value is a word without blanks, or any text in quotes; a quote within is doubled, as in SQL.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

from schemas.errors import ConfigurationError
from transforms.filters.conditions import Condition, Operator, Value
from transforms.filters.typed import EQUALITY_ALONE, UNKNOWN, Written, declared, member_values, values_of

MOST_CHARACTERS = 10_000
"""Characters of a condition."""
MOST_VALUES = 1_000
"""Values of an `in`: OpenSearch's own clauses of a query are 1,024 at most by default."""

FORM = "write `column = value`; also !=, <, <=, >, >=, in (a, b), is null and is not null; text with blanks in quotes"

_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>'(?:[^']|'')*'|"(?:[^"]|"")*")|(?P<sign><=|>=|!=|<>|=|<|>)|(?P<mark>[(),])|(?P<word>[^\s'"(),=<>!]+))"""
)
_NAMES = re.compile(r'(?:[^\W\d][\w$-]*|"(?:[^"]|"")+")(?:\.(?:[\w$-]+|"(?:[^"]|"")+"))*')
_NAME = re.compile(r'"(?:[^"]|"")+"|[^."]+')
_ORDERS = frozenset({"<", "<=", ">", ">="})


@dataclass(frozen=True)
class Filterable:
    """The metadata columns of each table that becomes documents, with their declared canonical types."""

    tables: Mapping[str, Mapping[str, str | None]]

    def of(self, column: str, tables: Collection[str] = ()) -> dict[str, str]:
        """The tables (of these; none: of all) that keep a column, and its type there."""
        return {
            table: declared(columns[column])
            for table, columns in self.tables.items()
            if column in columns and (not tables or table in tables)
        }

    def described(self, tables: Collection[str] = ()) -> str:
        """What can be filtered, for a message."""
        shown = [(table, columns) for table, columns in self.tables.items() if not tables or table in tables]
        return "; ".join(f"{table}: {', '.join(columns) or 'no column'}" for table, columns in shown)


class _Token(NamedTuple):
    kind: str
    text: str


def path_of(text: str) -> tuple[str, ...] | None:
    """A column and the members behind it; None if the text names none."""
    if not _NAMES.fullmatch(text.strip()):
        return None
    parts = _NAME.findall(text.strip())
    return tuple(part[1:-1].replace('""', '"') if part.startswith('"') else part for part in parts)


def parse(text: str, columns: Filterable, tables: Collection[str] = ()) -> Condition:
    """The condition that a text says, typed for the tables that are searched (none named: all).

    Raises:
        ConfigurationError: it is no condition, no searched table keeps the column, or the value is none of its type's. The
            message names columns, never the value.
    """
    path, operator, written = _read(text)
    by_table = columns.of(path[0], tables)
    if not by_table:
        raise _refused(
            f"no table that is searched keeps {path[0]!r} as metadata; what can be filtered: {columns.described(tables)}",
            "add the column to `document.metadata` of its table, then run `ragstream rebuild`, which asks the model for nothing",
        )
    if not written:
        return Condition(path, operator)
    typed = {kind: _typed(path, operator, written, kind) for kind in set(by_table.values())}
    values = tuple(dict.fromkeys(value for kind in sorted(typed) for value in typed[kind]))
    if not values:
        raise _ill_typed(path, operator, by_table)
    return Condition(path, operator, values)


def _typed(path: tuple[str, ...], operator: Operator, written: list[Written], canonical: str) -> tuple[Value, ...]:
    """All values for a column of this type; nothing where one of them, or the operator, does not fit it."""
    ordering = operator in _ORDERS
    if len(path) > 1 and canonical not in {UNKNOWN, "json"}:
        return ()
    if len(path) == 1 and (canonical == "json" or (ordering and canonical in EQUALITY_ALONE)):
        return ()
    alternatives = [
        member_values(value, ordering=ordering) if len(path) > 1 else values_of(value, canonical, ordering=ordering)
        for value in written
    ]
    if not all(alternatives) or (ordering and any(value.kind == "h" for values in alternatives for value in values)):
        return ()
    return tuple(value for values in alternatives for value in values)


def _read(text: str) -> tuple[tuple[str, ...], Operator, list[Written]]:
    """The path, the operator and the values of a condition."""
    if len(text) > MOST_CHARACTERS:
        raise _refused(f"a condition has {len(text)} characters, and {MOST_CHARACTERS} are taken", FORM)
    head = _NAMES.match(text.strip())
    path = path_of(head[0]) if head else None
    if head is None or path is None:
        raise _refused("a condition begins with no column's name", FORM)
    tokens = _tokens(text.strip()[head.end() :])
    words = [token.text.casefold() if token.kind == "word" else "" for token in tokens]
    if words in (["is", "null"], ["is", "not", "null"]):
        return path, "is null" if len(words) == 2 else "is not null", []
    if len(tokens) == 2 and tokens[0].kind == "sign" and tokens[1].kind in {"word", "quoted"}:
        if words[1] == "null":
            raise _refused("nothing equals NULL", "write `is null` or `is not null`")
        return path, cast("Operator", "!=" if tokens[0].text == "<>" else tokens[0].text), [_written(tokens[1])]
    if words[:1] == ["in"]:
        return path, "in", _listed(tokens[1:])
    raise _refused(f"what follows {'.'.join(path)!r} is no comparison with one value", FORM)


def _listed(tokens: list[_Token]) -> list[Written]:
    marks, values = [token.text for token in tokens[::2] if token.kind == "mark"], tokens[1::2]
    wanted = ["(", *[","] * (len(values) - 1), ")"]
    if (
        not values
        or marks != wanted
        or len(tokens) != len(wanted) + len(values)
        or any(v.kind not in {"word", "quoted"} for v in values)
    ):
        raise _refused("a list of values is expected behind `in`", "write `column in (a, 'b c')`")
    if len(values) > MOST_VALUES:
        raise _refused(f"`in` has {len(values)} values, and {MOST_VALUES} are taken", "ask in parts")
    return [_written(value) for value in values]


def _written(token: _Token) -> Written:
    if token.kind == "word":
        return Written(token.text, quoted=False)
    quote = token.text[0]
    return Written(token.text[1:-1].replace(quote * 2, quote), quoted=True)


def _tokens(text: str) -> list[_Token]:
    tokens, at = [], 0
    while at < len(text.rstrip()):
        token = _TOKEN.match(text, at)
        if token is None:
            raise _refused("a condition has a quote that does not end, or a character that belongs in quotes", FORM)
        tokens.append(_Token(token.lastgroup or "", token[token.lastgroup or 0]))
        at = token.end()
    return tokens


def _ill_typed(path: tuple[str, ...], operator: Operator, by_table: Mapping[str, str]) -> ConfigurationError:
    types = ", ".join(f"{canonical} in {table}" for table, canonical in sorted(by_table.items()))
    name = ".".join(path)
    if len(path) > 1 and not set(by_table.values()) & {UNKNOWN, "json"}:
        return _refused(f"{path[0]!r} has no members: it is {types}", "leave the part behind the dot out")
    if len(path) == 1 and set(by_table.values()) == {"json"}:
        return _refused(f"{name!r} is JSON as a whole ({types})", f"name a member: `{name}.NAME {operator} value`")
    return _refused(
        f"the value is none that {name!r} can be compared with by `{operator}`: it is {types}",
        "dates and times are written as 2026-11-29 and 2026-11-29T14:30:00Z, numbers with a point; UUIDs, bytes, bits and "
        "intervals have no order, nor have texts of 200 characters and more",
    )


def _refused(what: str, hint: str) -> ConfigurationError:
    return ConfigurationError(f"filter: {what}", condition="FILTER_INVALID", hint=hint)
