"""The API's description in OpenAPI 3.1, whose schemas are those that requests are validated by."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.http import messages
from service.release import release

_REFERENCE = "#/components/schemas/{model}"
_JSON, _EVENTS = "application/json", "text/event-stream"


class Operation(NamedTuple):
    """What is said of a route."""

    summary: str
    answer: type[BaseModel] | None
    body: type[BaseModel] | None = None
    events: tuple[type[BaseModel], ...] = ()
    faults: tuple[int, ...] = ()
    """Statuses beside those of every route."""


OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/ask"): Operation(
        "Answer a question, with citations. `Accept: text/event-stream` gives events: started, citation, sentence, fact, "
        "restart (all that was said is taken back), answer, error.",
        messages.Answer, messages.AskRequest,
        (messages.Started, messages.CitationEvent, messages.Sentence, messages.FactEvent, messages.Answer, messages.Fault),
        (400, 404, 408, 409, 413, 415, 422),
    ),
    ("POST", "/v1/search"): Operation(
        "Find documents.", messages.SearchAnswer, messages.SearchRequest, faults=(400, 408, 413, 415, 422)
    ),
    ("GET", "/v1/rows/{document_id}"): Operation("A document as it is now.", messages.Row, faults=(404,)),
    ("POST", "/v1/watch"): Operation(
        "Watch cited documents: event `state` once for each change, event `freshness` every second.",
        None, messages.WatchRequest, (messages.State, messages.Freshness, messages.Fault), (400, 408, 413, 415, 422),
    ),
    ("GET", "/v1/freshness"): Operation("How far the index has come.", messages.Freshness),
    ("GET", "/v1/sessions"): Operation("The caller's sessions.", messages.Sessions, faults=(404,)),
    ("GET", "/v1/sessions/{name}"): Operation("The last exchanges of a session.", messages.Exchanges, faults=(404,)),
    ("DELETE", "/v1/sessions/{name}"): Operation("Delete a session now.", messages.Deleted, faults=(404,)),
    ("GET", "/v1/profile"): Operation("What is kept of the caller.", messages.Profile, faults=(404,)),
    ("PUT", "/v1/profile"): Operation(
        "Replace the profile.", messages.Profile, messages.ProfileRequest, faults=(400, 404, 408, 409, 413, 415, 422)
    ),
    ("POST", "/v1/feedback"): Operation(
        "Rate an answer; the last rating of a turn is kept.", messages.Feedback, messages.FeedbackRequest,
        faults=(400, 404, 408, 409, 413, 415, 422),
    ),
    ("GET", "/v1/me"): Operation("The caller, and what this service has.", messages.Me),
}  # fmt: skip
"""By method and path."""
_FAULTS = {
    400: "The body is no JSON in UTF-8", 401: "Nobody is signed in", 403: "The caller may not do this",
    404: "There is no such thing, or the caller may not see it", 408: "The body came too slowly",
    409: "Something else happened meanwhile", 413: "Too large", 415: "The body is not said to be JSON",
    421: "The service has another name", 422: "The request is not of this form", 429: "Too many requests of this caller",
    500: "A defect", 503: "A part of the service is away, or the service is busy or stopping", 504: "The answer took too long",
}  # fmt: skip
_ALWAYS = (401, 403, 421, 429, 500, 503, 504)


def document(pipeline: str) -> dict[str, Any]:
    """The description of one pipeline's service."""
    models: set[type[BaseModel]] = {messages.Error, messages.Health}
    for operation in OPERATIONS.values():
        models |= {model for model in (operation.answer, operation.body, *operation.events) if model is not None}
    modes: list[tuple[type[BaseModel], Literal["validation"]]] = [(model, "validation") for model in models]
    _, definitions = models_json_schema(sorted(modes, key=lambda mode: mode[0].__name__), ref_template=_REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), operation in OPERATIONS.items():
        paths.setdefault(path, {})[method.lower()] = _described(path, operation)
    paths["/healthz"] = {"get": _health("Whether requests are answered now: 200, or 503.", messages.Health)}
    return {
        "openapi": "3.1.0",
        "info": {"title": f"ragstream: {pipeline}", "version": release()},
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"bearer": []}, {}],
    }


def _described(path: str, operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {} if operation.answer is None else {_JSON: {"schema": _schema(operation.answer)}}
    if operation.events:
        content[_EVENTS] = {"schema": {"type": "string"}, "x-events": [_schema(event) for event in operation.events]}
    described: dict[str, Any] = {
        "summary": operation.summary,
        "responses": {"200": {"description": "The answer", "content": content}},
    }
    for status in sorted({*_ALWAYS, *operation.faults}):
        described["responses"][str(status)] = _fault(status)
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": {_JSON: {"schema": _schema(operation.body)}}}
    if "{" in path:
        name = path[path.index("{") + 1 : path.index("}")]
        described["parameters"] = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}]
    return described


def _fault(status: int) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": _FAULTS[status],
        "content": {_JSON: {"schema": _schema(messages.Error)}},
    }
    if status in {429, 503}:
        described["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait."}}
    return described


def _health(summary: str, model: type[BaseModel]) -> dict[str, Any]:
    content = {_JSON: {"schema": _schema(model)}}
    answers = {"200": "Ready", "503": "Not ready"}
    return {
        "summary": summary, "security": [],
        "responses": {status: {"description": text, "content": content} for status, text in answers.items()},
    }  # fmt: skip


def _schema(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}
