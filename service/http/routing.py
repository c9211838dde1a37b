"""Routes with what all of them do: who sends it, is it too much, how is it answered, how is it counted."""

from __future__ import annotations

from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from schemas.errors import PipelineError
from service.callers.protocol import Identity
from service.http.context import Context, Handler
from service.http.errors import Answerable, answerable
from transforms.values import exact_json

ROUTE = "ragstream.route"
"""The member of a request's scope with the template of its route."""
NO_ROUTE = "none"
IDENTITY = "ragstream.identity"
"""The member with who sent it."""


class Endpoint(NamedTuple):
    """A route of the API."""

    method: str
    path: str
    handler: Handler
    operation: str
    """Its name in OpenAPI."""


def route(context: Context, endpoint: Endpoint) -> Route:
    """The route of an endpoint, for callers who are signed in and do not ask too often."""

    async def answer(request: Request) -> Response:
        request.scope[ROUTE] = endpoint.path
        try:
            return await endpoint.handler(context, request, await identified(context, request))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered
            return refused(context, request.scope, answerable(error))

    return Route(endpoint.path.replace("{name}", "{name:path}").replace("{document_id}", "{document_id:path}"),
                 answer, methods=[endpoint.method])  # fmt: skip


async def identified(context: Context, request: Request) -> Identity:
    """Who sent a request, which is counted as theirs.

    Raises:
        SignInError: nobody is signed in, or the key or token is not good.
        RequestError: it is one request too many in this time.
    """
    identity = await context.callers.identify(request.headers)
    request.scope[IDENTITY] = identity
    context.rate.take(identity)
    return identity


def refused(context: Context, scope: Scope, fault: Answerable) -> Response:
    """The answer to a fault, counted."""
    context.metrics.refused.labels(scope.get(ROUTE, NO_ROUTE), fault.condition).inc()
    return json_response(fault.body, fault.status, fault.headers)


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer, with numbers as exact as rows have them."""
    return Response(exact_json.dumps(body, ascii_only=False), status, headers, "application/json")


def not_found(_: Request, __: Exception) -> Response:
    """The answer where no route is."""
    fault = PipelineError(
        "there is nothing at this address", condition="NOT_FOUND", hint="/openapi.json says what there is"
    )
    return json_response(Answerable(404, fault).body, 404)


def not_allowed(_: Request, error: Exception) -> Response:
    """The answer where a route takes other methods."""
    fault = PipelineError(
        "this method is not taken here", condition="METHOD_NOT_ALLOWED", hint="/openapi.json says which are"
    )
    return json_response(Answerable(405, fault).body, 405, dict(getattr(error, "headers", None) or {}))
