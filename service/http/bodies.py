"""Bodies of requests: read within limits of size and time, parsed, and validated. No error quotes them."""

from __future__ import annotations

import asyncio

import orjson
from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from schemas.model import StrictModel
from service.config import LimitsConfig
from service.http.errors import RequestError
from service.http.messages import faults_of
from service.http.work import client_gone

_EXTRA_KEY = "a key: Extra inputs are not permitted"
"""Said of a key that the body does not take, whose name is not quoted."""


async def body_of[M: StrictModel](request: Request, model: type[M], limits: LimitsConfig) -> M:
    """The body of a request.

    Raises:
        RequestError: it is no JSON (400, 415), too large (413), too slow (408), or not of this form (422).
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestError(
            415, "the body is not said to be JSON", condition="BODY_TYPE", hint="send `Content-Type: application/json`"
        )
    try:
        value = orjson.loads(await bytes_of(request, limits))
    except (ValueError, RecursionError):
        raise RequestError(
            400, "the body is no JSON in UTF-8", condition="BODY_MALFORMED", hint="/openapi.json describes it"
        ) from None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = f"the body is no {error.title}: {faults_of(error, _EXTRA_KEY)}"
        raise RequestError(422, faults, condition="BODY_INVALID", hint="/openapi.json describes it") from None


async def bytes_of(request: Request, limits: LimitsConfig) -> bytes:
    """The body's bytes; raises RequestError where it is too large (413) or too slow (408), or the client went away."""
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > limits.body_bytes:
        raise _too_large(limits)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_timeout):
            async for part in request.stream():
                body += part
                if len(body) > limits.body_bytes:
                    raise _too_large(limits)
    except TimeoutError:
        raise RequestError(
            408, "the body came too slowly", condition="BODY_SLOW", hint=f"send it within {limits.body_timeout:g} s"
        ) from None
    except ClientDisconnect:
        raise client_gone() from None
    return bytes(body)


def _too_large(limits: LimitsConfig) -> RequestError:
    return RequestError(
        413, "the body is too large", condition="BODY_TOO_LARGE", hint=f"at most {limits.body_bytes} bytes are taken"
    )
