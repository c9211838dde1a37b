"""Retries of one request to a model within a time limit, for generation and reranking."""

from __future__ import annotations

import tenacity

from embeddings.outcomes import Throttled, Unanswered


def retrying(seconds: float) -> tenacity.Retrying:
    """Try again after throttles and silences until the time is up, then raise the last of them."""
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((Throttled, Unanswered)),
        wait=_backoff,
        stop=tenacity.stop_after_delay(seconds),
        reraise=True,
    )


def _backoff(state: tenacity.RetryCallState) -> float:
    """The delay that the provider names, else an exponential one with jitter, in seconds: somebody waits for the answer."""
    failure = state.outcome.exception() if state.outcome else None
    named = failure.retry_after if isinstance(failure, Throttled) else None
    return named or tenacity.wait_exponential_jitter(initial=0.05, max=10, jitter=0.05)(state)
