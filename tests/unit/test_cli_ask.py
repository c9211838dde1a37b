"""Texts on the command line: what is asked may begin with a hyphen."""

from __future__ import annotations

from typing import Any

import click
import pytest

from glue_jobs.cli.ask import ask, search

TEXTS = [
    "-5 degrees in the freezer",
    "-5",
    "-40\u00b0C",
    "--5",
    "- a list item",
    "-freezer at -5 degrees",
    "--json is what?",
    "-k 5 rows",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_that_begins_with_a_hyphen_is_asked_among_real_options(text: str) -> None:
    context = search.make_context("search", ["c.yaml", text, "-k", "3", "--store=my store", "--json"])  # click#1817
    params: dict[str, Any] = {
        "config": "c.yaml",
        "query": text,
        "queries": None,
        "count": 3,
        "store": "my store",
        "as_json": True,
    }
    params |= {"tables": (), "conditions": (), "user": None, "claims": ()}
    assert context.params == params
    context = ask.make_context("ask", ["--store", "- s", "c.yaml", text])
    assert (context.params["question"], context.params["store"], context.params["as_json"]) == (text, "- s", False)


@pytest.mark.parametrize("typo", ["--jsn", "--storee=x y", "-freezer", "-q"])
def test_a_typo_of_an_option_is_refused_with_what_to_write(typo: str) -> None:
    with pytest.raises(click.UsageError, match=r"No such option.*behind `--`"):
        search.make_context("search", ["c.yaml", "text", typo])


def test_behind_two_hyphens_everything_is_text() -> None:
    assert search.make_context("search", ["c.yaml", "--", "-freezer"]).params["query"] == "-freezer"
    with pytest.raises(click.UsageError, match=r"unexpected extra argument \(-5 two\)"):
        search.make_context("search", ["c.yaml", "one", "-5 two"])
