"""`ragstream search` and `ragstream ask`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import click

from glue_jobs.cli.main import CONFIG

if TYPE_CHECKING:
    from retrieval.access import Scope
    from schemas.caller import Caller

_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object an answer.")
_STORE = click.option("--store", help="Name of the store to search; default: the pipeline's first.")
_SHIELD = "\0"
"""Put before a text's hyphen while click parses options: no argument of a process can contain it."""


class Asking(click.Command):
    """A command whose text argument may begin with a hyphen."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does; an unknown option is refused with the form to write instead."""
        options = {name for param in self.get_params(ctx) for name in param.opts}
        try:
            remaining = super().parse_args(ctx, [_SHIELD + arg if is_text(arg, options) else arg for arg in args])
        except click.UsageError as error:
            hint = (
                " A text that begins with a hyphen goes last, behind `--`."
                if isinstance(error, click.NoSuchOption)
                else ""
            )
            raise click.UsageError(error.format_message().replace(_SHIELD, "") + hint, ctx) from None
        for name, value in ctx.params.items():
            if isinstance(value, str):
                ctx.params[name] = value.removeprefix(_SHIELD)
            elif isinstance(value, tuple):
                ctx.params[name] = tuple(one.removeprefix(_SHIELD) for one in value)
        return remaining


def is_text(argument: str, options: Collection[str]) -> bool:
    """Whether an argument that begins with a hyphen is text: it contains a space, or no letter follows the hyphens."""
    if not argument.startswith("-") or argument in {"-", "--"} or argument.partition("=")[0] in options:
        return False
    if re.match(r"--[A-Za-z][A-Za-z-]*=", argument):
        return False
    return re.search(r"\s", argument) is not None or re.match(r"--?[A-Za-z]", argument) is None


def _scoped[F: Callable[..., Any]](command: F) -> F:
    """The options that say what is searched, and who asks."""
    for option in reversed((
        click.option("--table", "tables", multiple=True, help="Search the documents of this table; repeat it for several."),
        click.option("--filter", "conditions", multiple=True, metavar="EXPR",
                     help="Search documents for which this holds: `status = open`, `price >= 10`, `state in (a, b)`, "
                          "`attrs.color = 'red'`, `closed is null`. Repeat it: all of them hold."),
        click.option("--user", help="Who asks: the claim `sub`."),
        click.option("--claim", "claims", multiple=True, metavar="NAME=VALUE",
                     help="A claim of who asks, for the rules of `access`; repeat it for several."),
    )):  # fmt: skip
        command = option(command)
    return command


def caller_of(user: str | None, claims: Sequence[str]) -> Caller:
    """The caller that the options name; a value that reads as a whole number, true, false or a JSON list is one, else text."""
    from schemas.caller import USER, Caller

    named: dict[str, Any] = {} if user is None else {USER: user}
    for claim in claims:
        name, equals, value = claim.partition("=")
        if not equals or not name:
            raise click.BadParameter("a claim is written as NAME=VALUE", param_hint="--claim")
        if name in named:
            raise click.BadParameter(f"{name!r} is given twice; several values are a JSON list", param_hint="--claim")
        named[name] = _claim(value)
    return Caller(named)


def _claim(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if value is None or isinstance(value, float | dict) else value


@click.command(cls=Asking)
@CONFIG
@click.argument("query", required=False)
@click.option("--queries", type=click.Path(), help="A JSONL file of objects with `query_id` and `query`.")
@click.option("-k", "count", default=10, show_default=True, type=click.IntRange(min=1), help="Most results.")
@_scoped
@_STORE
@_JSON
def search(
    config: str, query: str | None, queries: str | None, count: int, store: str | None, *, as_json: bool, **scope: Any
) -> None:
    """Show what retrieval finds for QUERY, or for each of a file of queries, without generating an answer."""
    from glue_jobs.config.pipeline import load_config
    from retrieval import commands

    if (query is None) == (queries is None):
        raise click.UsageError("give either QUERY or --queries FILE")
    to_search = [commands.Query(None, query)] if query is not None else commands.read_queries(str(queries))
    for result in commands.search(load_config(config), to_search, count, store, _scope(**scope)):
        click.echo(json.dumps(result, ensure_ascii=False) if as_json or queries else _results(result))


@click.command(cls=Asking)
@CONFIG
@click.argument("question")
@click.option("--session", help="The conversation to continue, or to begin.")
@click.option("--turn-id", help="Your own name of the turn in its session: repeated, it gives the same answer.")
@_scoped
@_STORE
@_JSON
def ask(config: str, question: str, store: str | None, *, as_json: bool, **asked: Any) -> None:
    """Answer QUESTION from the documents, with citations and how fresh the index is."""
    from glue_jobs.config.pipeline import load_config
    from retrieval import commands
    from retrieval.conversation.turns import Session

    session, turn_id = asked.pop("session"), asked.pop("turn_id")
    if session is None and turn_id is not None:
        raise click.UsageError("--turn-id names a turn of a --session")
    turn = Session(session, turn_id) if session is not None else None
    answer = commands.ask(load_config(config), question, turn, store, _scope(**asked))
    click.echo(json.dumps(answer, ensure_ascii=False) if as_json else _answer(answer))


def _scope(tables: tuple[str, ...], conditions: tuple[str, ...], user: str | None, claims: tuple[str, ...]) -> Scope:
    from retrieval.access import Scope

    return Scope(tables, conditions, caller_of(user, claims))


def _results(result: dict[str, Any]) -> str:
    if result["abstained"]:
        return "nothing relevant was found"
    return "\n".join(
        f"{hit['score']:.3f}  {hit['table']} {_key(hit)}  {' '.join(hit['chunk_text'].split())[:100]}"
        for hit in result["results"]
    )


def _answer(answer: dict[str, Any]) -> str:
    cited = "".join(
        f"\n  [{at}] {citation['table']} {_key(citation)}" for at, citation in enumerate(answer["citations"], 1)
    )
    fresh = answer["freshness"]
    lag = fresh.get("lag_seconds")
    lag_text = "" if lag is None else f", {lag:.1f} s behind the source"
    return (
        f"{answer['answer']}{cited}\n({answer['answerer']}; searchable as of {fresh.get('searchable_as_of')}{lag_text})"
    )


def _key(hit: dict[str, Any]) -> str:
    return ",".join(str(value) for value in hit["key"].values())
