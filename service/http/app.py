"""The application: every route of the service, and the page."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from service.callers.protocol import Identity
from service.http import handlers, health
from service.http.asking import ask
from service.http.context import Context
from service.http.guard import Guard
from service.http.health import Health
from service.http.metrics import CONTENT_TYPE
from service.http.openapi import document
from service.http.routing import ROUTE, Endpoint, json_response, not_allowed, not_found, route

ENDPOINTS = (
    Endpoint("POST", "/v1/ask", ask, "ask"),
    Endpoint("POST", "/v1/search", handlers.search, "search"),
    Endpoint("GET", "/v1/rows/{document_id}", handlers.row, "row"),
    Endpoint("POST", "/v1/watch", handlers.watch, "watch"),
    Endpoint("GET", "/v1/freshness", handlers.freshness, "freshness"),
    Endpoint("GET", "/v1/sessions", handlers.sessions, "sessions"),
    Endpoint("GET", "/v1/sessions/{name}", handlers.exchanges, "exchanges"),
    Endpoint("DELETE", "/v1/sessions/{name}", handlers.delete_session, "deleteSession"),
    Endpoint("GET", "/v1/profile", handlers.profile, "profile"),
    Endpoint("PUT", "/v1/profile", handlers.put_profile, "putProfile"),
    Endpoint("POST", "/v1/feedback", handlers.feedback, "feedback"),
    Endpoint("GET", "/v1/me", handlers.me, "me"),
)
"""The API. What OpenAPI says of each is in `service.http.openapi`."""


def application(context: Context, checks: Health, pages: list[Route]) -> ASGIApp:
    """The service as one application; `pages` are files that need no sign-in."""
    described = partial(_openapi, document(context.about["pipeline"]))
    routes = [
        *(route(context, endpoint) for endpoint in ENDPOINTS),
        Route("/openapi.json", described, methods=["GET"]),
        *pages,
    ]
    return guarded(context, checks, routes)


def guarded(context: Context, checks: Health, routes: list[Route]) -> ASGIApp:
    """Routes, with those of health and metrics, behind what every request passes."""

    async def metrics(_: Context, request: Request, __: Identity | None = None) -> Response:
        request.scope[ROUTE] = "/metrics"
        await checks.conditions()  # asks the store how far the index is
        return Response(context.metrics.rendered(), media_type=CONTENT_TYPE)

    probes = [
        Route("/healthz", partial(health.ready, context, checks), methods=["GET"]),
        Route("/healthz/live", partial(health.live, context, checks), methods=["GET"]),
        Route("/metrics", partial(metrics, context), methods=["GET"])
        if context.config.open_metrics
        else route(context, Endpoint("GET", "/metrics", metrics, "metrics")),
    ]
    app = Starlette(routes=[*routes, *probes], exception_handlers={404: not_found, 405: not_allowed})
    app.router.redirect_slashes = False
    return Guard(app, context)


async def _openapi(described: dict[str, Any], request: Request) -> Response:
    request.scope[ROUTE] = "/openapi.json"
    return json_response(described)
