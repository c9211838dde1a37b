"""The caller of a question."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from schemas.caller import ANYONE, Caller
from schemas.errors import ConfigurationError


def test_the_user_is_the_subject_and_no_other_claim() -> None:
    assert Caller({"sub": "ada", "user": "eve"}).user == "ada"
    others: list[dict[str, Any]] = [{}, {"sub": ""}, {"sub": 7}, {"sub": ["ada"]}, {"user": "eve"}]
    assert [Caller(claims).user for claims in others] == [None] * len(others)
    assert ANYONE.user is None


def test_a_caller_does_not_change_with_what_it_was_made_from() -> None:
    groups = ["a", "b"]
    claims: dict[str, Any] = {"groups": groups}
    caller = Caller(claims)
    groups.append("admin")
    claims["sub"] = "root"
    assert dict(caller.claims) == {"groups": ("a", "b")}
    kept: Any = caller.claims
    with pytest.raises(TypeError):
        kept["sub"] = "root"
    assert deepcopy(caller) == caller == Caller({"groups": ("a", "b")})
    assert len({caller, Caller({"groups": ("a", "b")}), ANYONE}) == 2


@pytest.mark.parametrize("claim", [None, {"tenant": "acme"}, ["acme", None], [["acme"]], b"acme"])
def test_a_claim_that_nothing_compares_is_refused(claim: Any) -> None:
    with pytest.raises(ConfigurationError, match="claim 'org'") as raised:
        Caller({"org": claim})
    assert "acme" not in str(raised.value)


def test_no_claim_is_shown() -> None:
    assert "acme" not in repr(Caller({"tenant": "acme"}))
