"""Errors as answers: a status, and `{"error": {"condition", "message", "hint"}}`.

A fault of the request is said in full. Of a fault of the service a client learns the condition alone: what is away, and where, is
in the log.
"""

from __future__ import annotations

import logging
import math
from typing import Any

from schemas.errors import PipelineError, RejectedError, UnavailableError
from service.callers.protocol import ForbiddenError, SignInError

logger = logging.getLogger(__name__)

CLIENT_GONE = 499
"""Of a request whose client went away: nobody gets this answer, but the log and the metrics name it (nginx's number)."""
_STATUS = {
    "SESSION_OF_ANOTHER": 403, "NO_USER": 403,
    "NO_MEMORY": 404, "SESSION_UNKNOWN": 404, "TURN_UNKNOWN": 404,
    "ANSWER_OUTDATED": 409, "FEEDBACK_BUSY": 409,
    "PROFILE_CHANGED": 409, "SESSION_BUSY": 409, "TURN_ID_USED": 409, "TURN_TAKEN_OVER": 409, "TURN_UNANSWERED": 409,
    "MESSAGE_TOO_LARGE": 413, "QUESTION_TOO_LONG": 413,
    "CLAIM_INVALID": 422, "FEEDBACK_INVALID": 422, "FILTER_INVALID": 422, "NAME_INVALID": 422, "PROFILE_INVALID": 422,
}  # fmt: skip
"""By condition, where a request is at fault for what the library refuses."""
_SERVICE_FAULT = "a part of the service does not answer, or refuses"
_RETRY_SECONDS = 2.0


class RequestError(PipelineError):
    """A request that is not answered as it is."""

    exit_status = 2

    def __init__(
        self, status: int, message: str, *, condition: str, hint: str = "", retry_after: float | None = None
    ) -> None:
        """`retry_after` is in seconds."""
        super().__init__(message, condition=condition, hint=hint)
        self.status = status
        self.retry_after = retry_after


class Answerable:
    """An error as it is answered."""

    def __init__(self, status: int, error: PipelineError, retry_after: float | None = None) -> None:
        self.status = status
        self.condition = error.condition
        self._error = error
        self.retry_after = retry_after

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object."""
        return {"error": self.event}

    @property
    def event(self) -> dict[str, str]:
        """The data of an event `error`."""
        return {"condition": self._error.condition, "message": self._error.message, "hint": self._error.hint}

    @property
    def headers(self) -> dict[str, str]:
        """What goes with the status."""
        if self.status == 401:
            tried = self.condition != "SIGN_IN_NEEDED"
            return {"WWW-Authenticate": 'Bearer error="invalid_token"' if tried else "Bearer"}  # RFC 6750, 3
        if self.condition == "SCOPE_MISSING":
            return {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}  # the same, 3.1
        if self.status in {408, 413}:
            return {"Connection": "close"}  # what is left of the body is not read
        return {} if self.retry_after is None else {"Retry-After": str(max(1, math.ceil(self.retry_after)))}


def answerable(error: BaseException) -> Answerable:
    """The answer to an error; one that is not a request's fault is logged with all that it says."""
    match error:
        case RequestError():
            return Answerable(error.status, error, error.retry_after)
        case SignInError():
            return Answerable(401, error)
        case ForbiddenError():
            return Answerable(403, error)
        case PipelineError() if error.condition in _STATUS:
            retried = isinstance(error, UnavailableError)
            return Answerable(_STATUS[error.condition], error, _RETRY_SECONDS if retried else None)
        case RejectedError():
            return Answerable(422, error)
        case PipelineError():
            logger.error(
                "a request is not answered",
                extra={"context": {"condition": error.condition, "error": error.message, "hint": error.hint}},
            )
            known = PipelineError(_SERVICE_FAULT, condition=error.condition, hint="send the request again in a while")
            return Answerable(503, known, _RETRY_SECONDS)
        case _:
            logger.error("a request failed on a defect", exc_info=error, extra={"context": {"at": _place(error)}})
            defect = PipelineError("the service failed", condition="DEFECT", hint="its log says where")
            return Answerable(500, defect)


def _place(error: BaseException) -> str:
    """The innermost line of code, without the error's text, which may quote a row."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
