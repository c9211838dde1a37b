"""What the service takes on, whom it serves, and what it says where it does not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from schemas.caller import ANYONE, Caller
from schemas.errors import ConfigurationError, PipelineError, RejectedError, UnavailableError
from service.callers.protocol import ForbiddenError, Identity, SignInError
from service.config import LimitsConfig, ServeConfig
from service.http.errors import RequestError, answerable
from service.http.limits import Places, Rate

ADA, BOB, NOBODY = (
    Identity(Caller({"sub": "ada"}), "key"), Identity(Caller({"sub": "bob"}), "key"), Identity(ANYONE, "none"),
)  # fmt: skip
KEYS: dict[str, Any] = {"type": "api_keys", "keys": [{"name": "a", "sha256": "0" * 64}]}


def test_a_caller_who_asks_too_often_waits_and_nobody_else() -> None:
    clock = [0.0]
    rate = Rate(LimitsConfig(requests_per_minute=60, burst=3), lambda: clock[0])
    for _ in range(3):
        rate.take(ADA)
    with pytest.raises(RequestError) as refused:
        rate.take(ADA)
    assert (refused.value.status, refused.value.retry_after) == (429, 1.0)
    assert answerable(refused.value).headers == {"Retry-After": "1"}
    rate.take(BOB)
    rate.take(NOBODY)
    clock[0] = 1.0
    rate.take(ADA)
    with pytest.raises(RequestError):
        rate.take(ADA)
    clock[0] = 1000.0
    for _ in range(3):
        rate.take(ADA)
    with pytest.raises(RequestError):
        rate.take(ADA)


def test_places_are_given_back_once_and_counted_by_caller() -> None:
    places = Places(3, 2, "requests")
    first, second = places.take(ADA), places.take(ADA)
    with pytest.raises(RequestError, match="of this caller") as own:
        places.take(ADA)
    places.take(BOB)
    with pytest.raises(RequestError) as full:
        places.take(NOBODY)
    assert (own.value.status, full.value.status, full.value.condition) == (429, 503, "SERVICE_BUSY")
    first()
    first()
    assert places.taken == 2
    places.take(NOBODY)
    with pytest.raises(RequestError):
        places.take(ADA)
    second()
    assert places.taken == 2


@pytest.mark.parametrize(
    ("error", "status", "is_said"),
    [
        (SignInError("m"), 401, True),
        (ForbiddenError("m"), 403, True),
        (ConfigurationError("m", condition="SESSION_OF_ANOTHER"), 403, True),
        (ConfigurationError("m", condition="SESSION_UNKNOWN"), 404, True),
        (UnavailableError("m", condition="PROFILE_CHANGED"), 409, True),
        (ConfigurationError("m", condition="QUESTION_TOO_LONG"), 413, True),
        (ConfigurationError("m", condition="FILTER_INVALID"), 422, True),
        (RejectedError("m"), 422, True),
        (ConfigurationError("m", condition="STORE_EMPTY"), 503, False),
        (UnavailableError("m", condition="BUDGET_USED_UP"), 503, False),
        (PipelineError("m"), 503, False),
        (ValueError("m"), 500, False),
    ],
)
def test_an_error_has_a_status_and_says_no_more_than_it_may(error: Exception, status: int, *, is_said: bool) -> None:
    fault = answerable(error)
    assert (fault.status, fault.body["error"]["message"] == "m") == (status, is_said)
    assert ("Retry-After" in fault.headers) == (status in {409, 503} and isinstance(error, PipelineError))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"host": "::", "allow_plaintext": True}, "for this machine alone"),
        ({"host": "10.1.2.3", "callers": {"type": "none"}, "certificate": "c.pem"}, "for this machine alone"),
        ({"host": "rag.example", "callers": KEYS}, "allow_plaintext"),
        ({"host": "@abstract", "allow_plaintext": True}, "for this machine alone"),
        ({"key": "k.pem"}, "belongs to a `certificate`"),
        ({"callers": {"type": "api_keys", "keys": []}}, "at least 1"),
        ({"callers": {"type": "api_keys", "keys": KEYS["keys"] * 2}}, "two keys have the same"),
        ({"callers": {"type": "api_keys", "keys": [{"name": "a", "sha256": "a secret"}]}}, "pattern"),
        ({"callers": {"type": "jwt", "issuer": "https://i", "audience": ["a"], "algorithms": ["HS256"]}}, "RS256"),
        ({"callers": {"type": "jwt", "issuer": "https://i", "audience": ["a"], "algorithms": []}}, "at least 1"),
        ({"callers": {"type": "jwt", "issuer": "https://i", "audience": []}}, "at least 1"),
        ({"callers": {"type": "jwt", "issuer": "http://i.example", "audience": ["a"]}}, "allow_plaintext"),
        ({"callers": {"type": "jwt", "issuer": "https://i", "audience": ["a"], "leeway": "10m"}}, "less than or equal"),
        ({"callers": {"type": "alb", "signer": ["arn"]}}, "`region`"),
        ({"callers": {"type": "alb", "signer": [], "region": "eu-west-1"}}, "at least 1"),
        ({"limits": {"burst": 0}}, "greater than or equal"),
    ],
)
def test_a_configuration_that_would_let_in_too_many_is_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(problem)) as refused:
        ServeConfig.model_validate(settings)
    assert "a secret" not in str(refused.value)


def test_the_examples_of_the_documents_are_taken() -> None:
    text = (Path(__file__).parents[2] / "docs/serving.md").read_text()
    examples = re.findall(r"```yaml\n(.+?)```", text, re.DOTALL)
    assert [ServeConfig.model_validate(yaml.safe_load(example)["serve"]).callers.type for example in examples] == [
        "jwt"
    ]
    statuses = {int(status) for status in re.findall(r"\b(4\d\d|5\d\d)\b", text.partition("## Limits")[2])}
    assert statuses >= {400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503, 504}
