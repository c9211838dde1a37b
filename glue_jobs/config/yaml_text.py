"""Parses YAML and JSON text into plain values and the line of each.

Only null, true and false, integers and floats are read as such: YAML 1.1's other readings (`no` as false, `1:30` as 90,
a bare date as a date) would turn a column's name into something else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from schemas.errors import ConfigurationError

type Path = tuple[str | int, ...]
"""Keys and indexes from the top of the file to a value: ("sinks", 1, "dsn")."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a configuration, and its place."""

    path: Path
    what: str
    hint: str = ""
    line: int = 0
    """Its line, where that is not the line of the value at `path`."""


@dataclass(frozen=True)
class Document:
    """A parsed file: its value, and the line of each key and entry."""

    name: str
    value: Any
    lines: dict[Path, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def line_of(self, path: Path) -> int:
        """The line of a value, counted from 1, or of the nearest enclosing value in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2's core schema."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+0123456789.")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


def parse(text: str, name: str) -> Document:
    """Parse one document; raises ConfigurationError with the line when it is neither YAML nor JSON.

    Duplicate keys become problems of the document: YAML would silently keep the last one.
    """
    try:
        # A JSON file may be indented with tabs, which YAML refuses; inside JSON strings they cannot stand.
        loader = _Loader(text.replace("\t", " ") if text.lstrip().startswith("{") else text)
        node = loader.get_single_node()
    except yaml.YAMLError as error:
        raise _unreadable(error, name) from None
    lines: dict[Path, int] = {}
    problems: list[Problem] = []
    value = _value(loader, node, (), lines, problems) if node is not None else None
    return Document(name, value, lines, tuple(problems))


def _value(loader: _Loader, node: yaml.Node, path: Path, lines: dict[Path, int], problems: list[Problem]) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node, path, lines, problems)
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, (*path, at), lines, problems) for at, item in enumerate(node.value)]
    if node.tag == "tag:yaml.org,2002:int":
        return int(node.value)
    if node.tag in {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "float", "str")}:
        return loader.construct_object(node)
    problems.append(Problem(path, f"the tag {node.tag} is not understood", "Write the value without a tag."))
    return None


def _mapping(
    loader: _Loader, node: yaml.MappingNode, path: Path, lines: dict[Path, int], problems: list[Problem]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = str(key_node.value)
        place = (*path, key)
        if key in values:
            what = f"this key is on line {lines[place]} already"
            problems.append(Problem(place, what, "Remove one of them.", key_node.start_mark.line + 1))
            continue
        lines[place] = key_node.start_mark.line + 1
        values[key] = _value(loader, value_node, place, lines, problems)
    return values


def _unreadable(error: yaml.YAMLError, name: str) -> ConfigurationError:
    """Name the place of a syntax error without quoting the text."""
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
    what = error.problem if isinstance(error, yaml.MarkedYAMLError) and error.problem else "special characters"
    return ConfigurationError(
        f"{where}: this is neither YAML nor JSON: {what}.",
        condition="CONFIGURATION_UNREADABLE",
        hint="Check indentation, colons and quotes there; `job_configs/helpdesk.yaml` is a file that works.",
    )
