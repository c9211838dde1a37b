"""Problems of a configuration file: path, line, what is wrong, how to mend it."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, TypeAliasType, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from glue_jobs.config.yaml_text import Document, Path, Problem
from schemas.errors import ConfigurationError

_WRONG_TYPE = {
    "string_type": "text", "int_type": "a whole number", "int_parsing": "a whole number",
    "int_from_float": "a whole number", "float_type": "a number", "float_parsing": "a number",
    "bool_type": "true or false", "bool_parsing": "true or false", "list_type": "a list", "tuple_type": "a list",
    "dict_type": "keys and values", "model_type": "keys and values", "model_attributes_type": "keys and values",
}  # fmt: skip
"""pydantic's error types that mean a wrong type, and what was expected."""
_RENAMED = {
    ("PipelineConfig", "real_time"): "continuous", ("RetrievalConfig", "relevance"): "min_similarity",
    ("FilesSourceConfig", "batch"): "max_records_per_trigger",
}  # fmt: skip
"""Keys of earlier versions by the section's model, and the keys that replace them."""


def of_validation(error: ValidationError, document: Document, model: type[BaseModel]) -> list[Problem]:
    """Turn pydantic's errors into problems; none of them quotes a value of the file."""
    details = error.errors(include_input=False, include_url=False)
    # pydantic also calls a list too short when all its entries are wrong.
    wrong_inside = {detail["loc"][:length] for detail in details for length in range(1, len(detail["loc"]))}
    specific = [detail for detail in details if detail["type"] != "too_short" or detail["loc"] not in wrong_inside]
    return [_problem(detail, document, model) for detail in specific]


def error_of(problems: Sequence[Problem], document: Document) -> ConfigurationError:
    """One error with every problem, in the order of the file."""
    ordered = sorted(dict.fromkeys(problems), key=lambda problem: problem.line or document.line_of(problem.path))
    lines = [f"{document.name}: {len(ordered)} {'problem' if len(ordered) == 1 else 'problems'}; nothing was started."]
    for problem in ordered:
        place = path_text(problem.path)
        line = problem.line or document.line_of(problem.path)
        lines.append(f"  {document.name}:{line}: {place + ': ' if place else ''}{problem.what}.")
        if problem.hint:
            lines.append(f"      {problem.hint}")
    return ConfigurationError("\n".join(lines), condition="CONFIGURATION_INVALID")


def path_text(path: Path) -> str:
    """Render a path: `sinks[1].dsn`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _problem(detail: ErrorDetails, document: Document, model: type[BaseModel]) -> Problem:
    kind = detail["type"]
    path, owner = _walk(detail["loc"], document.value, model)
    key = str(path[-1]) if path else ""
    if kind == "extra_forbidden":
        renamed = _RENAMED.get((owner.__name__ if owner else "", key))
        return Problem(path, "this key is unknown", f"Write `{renamed}`." if renamed else _nearest(key, owner))
    if kind in {"union_tag_invalid", "literal_error", "enum"}:
        context = detail.get("ctx") or {}
        at = (*path, "type") if kind == "union_tag_invalid" else path
        choices = context.get("expected_tags") or context.get("expected")
        return Problem(at, "this value is not one of those known", f"Write one of: {choices}.")
    if kind == "union_tag_not_found":
        return Problem((*path, "type"), "this key is missing", "It says which kind of part this is.")
    expected = "at least one" if kind == "too_short" else _WRONG_TYPE.get(kind)
    if expected or kind == "missing":
        what = f"{expected} is expected here" if expected else "this key is missing"
        return Problem(path, what, _purpose(owner, key))
    message = detail["msg"].removeprefix("Value error, ").rstrip(".")
    return Problem(path, message[:1].lower() + message[1:], "")


def _walk(location: Sequence[str | int], value: Any, model: type[BaseModel]) -> tuple[Path, type[BaseModel] | None]:
    """Translate pydantic's location, which also names union members, into a path in the file.

    Returns the path and the model that owns its last key.
    """
    path: Path = ()
    owner: type[BaseModel] | None = model
    inside: list[type[BaseModel]] = [model]
    for at, part in enumerate(location):
        last = at == len(location) - 1
        arm = next((candidate for candidate in inside if part in _tags(candidate)), None)
        if isinstance(value, dict) and isinstance(part, str) and (part in value or (last and arm is None)):
            owner = inside[0] if inside else None
            inside = _models_in(_annotation(owner, part))
            path, value = (*path, part), value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            path, value = (*path, part), value[part]
        elif arm is not None:
            inside = [arm]
        elif part == "[key]":
            break
    return path, owner


def _annotation(model: type[BaseModel] | None, key: str) -> Any:
    fields = model.model_fields if model else {}
    return next((field.annotation for name, field in fields.items() if key in (name, field.alias)), None)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models in an annotation, inside aliases, unions, lists and optional values."""
    if isinstance(annotation, TypeAliasType):
        return _models_in(annotation.__value__)
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    kind = model.model_fields.get("type")
    return (*(get_args(kind.annotation) if kind else ()), model.__name__)


def _keys(model: type[BaseModel]) -> dict[str, str]:
    return {field.alias or name: field.description or "" for name, field in model.model_fields.items()}


def _purpose(model: type[BaseModel] | None, key: str) -> str:
    described = _keys(model).get(key, "") if model else ""
    return " ".join(described.split())


def _nearest(key: str, model: type[BaseModel] | None) -> str:
    if model is None:
        return "Remove it."
    keys = list(_keys(model))
    matches = difflib.get_close_matches(key, keys, n=1)
    return f"Did you mean `{matches[0]}`?" if matches else f"Known here: {', '.join(keys)}."


def across_parts(raw: Any) -> Iterator[Problem]:
    """Problems between parts; checks the raw values, so that they are reported together with problems inside parts."""
    if not isinstance(raw, dict):
        return
    sources = _entries(raw, "source")
    tables = _entries(raw, "tables")
    names = {str(source.get("name", source.get("type"))): path for path, source in sources}
    yield from _repeated("source", [(path, source.get("name", source.get("type"))) for path, source in sources])
    yield from _repeated("store", [(path, sink.get("name", sink.get("type"))) for path, sink in _entries(raw, "sinks")])
    yield from _repeated("table", [((*path, "table"), table.get("table")) for path, table in tables])
    for path, entry in (*tables, *_entries(raw, "epochs"), *_entries(raw, "capture")):
        owner = entry.get("source")
        if owner is not None and str(owner) not in names:
            yield Problem((*path, "source"), f"no source is named {owner}", f"Sources here: {', '.join(names)}.")
        elif owner is None and len(names) > 1 and path[0] == "tables":
            hint = f"Add `source:` with one of: {', '.join(names)}."
            yield Problem(path, "several sources, and this table does not say which one owns it", hint)
    if raw.get("sinks") and not raw.get("embedding"):
        yield Problem(("sinks",), "a store needs vectors, and there is no `embedding`", "Add an `embedding` section.")
    if raw.get("sinks") and tables and not any(table.get("document") for _, table in tables):
        yield Problem(("sinks",), "no table becomes documents", "Give a table a `document` section, or remove `sinks`.")
    if raw.get("facts") and not raw.get("warehouse"):
        yield Problem(("facts",), "facts are read from a warehouse, and there is none", "Add a `warehouse` section.")
    yield from _hashes_without_a_key(raw, tables)
    yield from _shared_ledgers(raw)
    yield from _model_parameters_without_tools(raw)


def _hashes_without_a_key(raw: dict[str, Any], tables: list[tuple[Path, dict[str, Any]]]) -> Iterator[Problem]:
    for path, table in tables if not raw.get("hash_key") else ():
        columns = table.get("columns")
        for name, text in (columns if isinstance(columns, dict) else {}).items():
            if isinstance(text, str) and text.split()[-1:] == ["hash"]:
                hint = "Add `hash_key: ${secret:NAME}`: what is hashed without a key can be found by trying values."
                yield Problem((*path, "columns", name), "a hash needs a key, and there is no `hash_key`", hint)


def _shared_ledgers(raw: dict[str, Any]) -> Iterator[Problem]:
    """Budgets that name one ledger share what is counted in it, so their limits are the same."""
    limits_by_ledger: dict[str, tuple[str, dict[str, Any]]] = {}
    for name in ("embedding", "generation", "reranking"):
        budget = raw[name].get("budget") if isinstance(raw.get(name), dict) else None
        if not isinstance(budget, dict) or not isinstance(budget.get("ledger"), dict):
            continue
        limits = {key: budget.get(key) for key in ("requests_per_minute", "tokens_per_minute", "dollars_per_day")}
        first, first_limits = limits_by_ledger.setdefault(repr(sorted(budget["ledger"].items())), (name, limits))
        if limits != first_limits:
            what = f"it names the ledger of {first}.budget, and has other limits"
            yield Problem((name, "budget"), what, "Give both the same limits, or each a ledger of its own.")


def _model_parameters_without_tools(raw: dict[str, Any]) -> Iterator[Problem]:
    """Parameters of facts that a text model gives, where there is none, or one whose form has no tools."""
    generation = raw.get("generation")
    kind = generation if isinstance(generation, dict) else {}
    if kind.get("type", "extractive") != "extractive" and kind.get("format") != "inputs":
        return
    facts = raw.get("facts")
    queries = facts.get("queries") if isinstance(facts, dict) else None
    for at, fact in enumerate(queries if isinstance(queries, list) else []):
        parameters = fact.get("parameters") if isinstance(fact, dict) else None
        for name, parameter in (parameters if isinstance(parameters, dict) else {}).items():
            if isinstance(parameter, dict) and "model" in parameter:
                yield Problem(
                    ("facts", "queries", at, "parameters", name),
                    "its value comes from a text model that calls tools, and `generation` is none",
                    "Take it from a cited row or a claim, or name a text model (sagemaker: with `format: messages`).",
                )


def _entries(raw: dict[str, Any], key: str) -> list[tuple[Path, dict[str, Any]]]:
    value = raw.get(key)
    if isinstance(value, dict):
        return [((key,), value)]
    items = value if isinstance(value, list) else []
    return [((key, at), item) for at, item in enumerate(items) if isinstance(item, dict)]


def _repeated(what: str, named: list[tuple[Path, Any]]) -> Iterator[Problem]:
    counts = Counter(str(name) for _, name in named if name is not None)
    for path, name in named:
        if name is not None and counts[str(name)] > 1:
            counts[str(name)] = 1  # report it once
            hint = "Give each its own `name`." if what != "table" else "A table is carried once: remove the others."
            yield Problem(path, f"more than one {what} is called {name}", hint)
