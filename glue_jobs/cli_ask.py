"""`ragstream search` and `ragstream ask`."""

from __future__ import annotations

import json
from typing import Any

import click

from glue_jobs.cli import CONFIG

_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object an answer.")
_STORE = click.option("--store", help="The store that is searched, by its name; the pipeline's first unless given.")


@click.command()
@CONFIG
@click.argument("query", required=False)
@click.option("--queries", type=click.Path(), help="A JSONL file of objects with `query_id` and `query`.")
@click.option("-k", "count", default=10, show_default=True, type=click.IntRange(min=1), help="Results at most.")
@_STORE
@_JSON
def search(
    config: str, query: str | None, queries: str | None, count: int, store: str | None, *, as_json: bool
) -> None:
    """Show what retrieval finds for QUERY, or for each of a file of queries, without generating an answer."""
    from glue_jobs.config import load_config
    from retrieval import commands

    if (query is None) == (queries is None):
        raise click.UsageError("give either QUERY or --queries FILE")
    asked = [commands.Query(None, query)] if query is not None else commands.read_queries(str(queries))
    for answer in commands.search(load_config(config), asked, count, store):
        click.echo(json.dumps(answer, ensure_ascii=False) if as_json or queries else _results(answer))


@click.command()
@CONFIG
@click.argument("question")
@click.option("--session", help="A conversation to go on with.")
@_STORE
@_JSON
def ask(config: str, question: str, session: str | None, store: str | None, *, as_json: bool) -> None:
    """Answer QUESTION from the documents, with citations and how fresh the index is."""
    from glue_jobs.config import load_config
    from retrieval import commands

    answer = commands.ask(load_config(config), question, session, store)
    click.echo(json.dumps(answer, ensure_ascii=False) if as_json else _answer(answer))


def _results(answer: dict[str, Any]) -> str:
    if answer["abstained"]:
        return "nothing relevant was found"
    return "\n".join(
        f"{found['score']:.3f}  {found['table']} {_key(found)}  {' '.join(found['chunk_text'].split())[:100]}"
        for found in answer["results"]
    )


def _answer(answer: dict[str, Any]) -> str:
    cited = "".join(f"\n  [{at}] {each['table']} {_key(each)}" for at, each in enumerate(answer["citations"], 1))
    fresh = answer["freshness"]
    lag = fresh.get("lag_seconds")
    behind = "" if lag is None else f", {lag:.1f} s behind the source"
    return (
        f"{answer['answer']}{cited}\n({answer['answerer']}; searchable as of {fresh.get('searchable_as_of')}{behind})"
    )


def _key(found: dict[str, Any]) -> str:
    return ",".join(str(value) for value in found["key"].values())
