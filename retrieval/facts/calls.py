"""Facts as tools of a text model: what a model is offered, and whether what it writes is a value of each parameter. Pure.

A model gives the values of parameters that are declared as its own, and no other: neither a claim, nor a row's value, nor SQL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from generation.protocol import Tool
from warehouse.facts.values import ParameterType, as_text

if TYPE_CHECKING:
    from warehouse.facts.config import FactConfig, FactParameter

_SCHEMA_TYPES: Mapping[ParameterType, dict[str, str]] = {
    "text": {"type": "string"}, "integer": {"type": "integer"}, "decimal": {"type": "number"},
    "boolean": {"type": "boolean"}, "date": {"type": "string", "format": "date"},
    "timestamp": {"type": "string", "format": "date-time"},
}  # fmt: skip
_JSON_TYPES: Mapping[ParameterType, tuple[type, ...]] = {
    "text": (str,), "integer": (int,), "decimal": (int, float), "boolean": (bool,), "date": (str,), "timestamp": (str,),
}  # fmt: skip
"""The types of JSON, as Python reads them, that a value may have."""


class RefusedInput(ValueError):  # noqa: N818 - a refusal, returned to the model
    """The input of a tool call is not what its fact asks for; the message names declared parameters alone."""


def tool_of(fact: FactConfig) -> Tool:
    """A fact as a tool.

    Its schema has `type`, `properties` and `required` alone: Amazon Nova takes no more at the top ("Defining a tool").
    """
    properties = {name: _schema(parameter) for name, parameter in fact.asked.items()}
    return Tool(fact.name, fact.description, {"type": "object", "properties": properties, "required": [*properties]})


def input_values(fact: FactConfig, arguments: Mapping[str, Any] | None) -> dict[str, str]:
    """The values of a fact's parameters in a model's input, as text of their types.

    Raises:
        RefusedInput: the input is no object, lacks a parameter or has another one, or a value is not of its type or its limits.
    """
    asked = fact.asked
    if arguments is None or arguments.keys() != asked.keys():
        raise RefusedInput(f"the input is an object with these members and no other: {', '.join(asked)}")
    values = {}
    for name, parameter in asked.items():
        value = arguments[name]
        is_of_type = isinstance(value, _JSON_TYPES[parameter.type]) and (parameter.type == "boolean") == isinstance(
            value, bool
        )
        text = as_text(value, parameter.type) if is_of_type else None
        if text is None or not parameter.accepts(text):
            raise RefusedInput(f"{name} is not {_wanted(parameter)}")
        values[name] = text
    return values


def _schema(parameter: FactParameter) -> dict[str, Any]:
    schema: dict[str, Any] = {
        **_SCHEMA_TYPES[parameter.type],
        "description": f"{parameter.model} ({_wanted(parameter)})",
    }
    if parameter.choices:
        schema["enum"] = list(parameter.choices)
    elif parameter.type == "text":
        schema["maxLength"] = parameter.max_length
    if parameter.type in {"integer", "decimal"}:
        bounds = {"minimum": parameter.minimum, "maximum": parameter.maximum}
        schema |= {name: bound for name, bound in bounds.items() if bound is not None}
    return schema


def _wanted(parameter: FactParameter) -> str:
    """What a value has to be, in words."""
    forms = {"date": "a date as YYYY-MM-DD", "timestamp": "a time in ISO 8601", "integer": "a whole number",
             "decimal": "a number", "boolean": "true or false"}  # fmt: skip
    words = [forms.get(parameter.type, f"a text of 1 to {parameter.max_length} characters")]
    if parameter.choices:
        words = [f"one of {', '.join(map(str, parameter.choices))}"]
    if parameter.minimum is not None:
        words.append(f"from {parameter.minimum}")
    if parameter.maximum is not None:
        words.append(f"to {parameter.maximum}")
    return " ".join(words)
