"""`ragstream sessions`, `ragstream profile` and `ragstream forget`: what a pipeline's memory keeps of a user."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from glue_jobs.cli.main import CONFIG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memory.conversations import Exchange, Session
    from memory.feedback import Rating
    from memory.profiles import Value

_JSON = click.option("--json", "as_json", is_flag=True, help="JSON, one object a line.")
_OF = click.option("--user", required=True, help="The user.")


@click.command()
@CONFIG
@click.argument("session", required=False)
@click.option("--delete", is_flag=True, help="Delete the session now.")
@click.option("--user", help="The user; without one, the conversations of callers without a user.")
@_JSON
def sessions(config: str, session: str | None, user: str | None, *, delete: bool, as_json: bool) -> None:
    """List a user's conversations, the last asked first; or show SESSION, or delete it."""
    from glue_jobs.config.pipeline import load_config
    from retrieval import commands

    if delete and session is None:
        raise click.UsageError("--delete needs the name of a SESSION")
    with commands.remembering(load_config(config)) as memory:
        kept = memory.conversations
        if session is None:
            lines = list(map(_listed, kept.sessions(user)))
        elif delete:
            lines = [
                (
                    {"session": session, "deleted_messages": (count := kept.delete(user, session))},
                    f"{count} messages deleted",
                )
            ]
        else:
            ratings = memory.feedback.of(user, session)
            lines = [_shown(exchange, ratings.get(exchange.number)) for exchange in kept.exchanges(user, session)]
    for as_object, text in lines:
        click.echo(json.dumps(as_object, ensure_ascii=False) if as_json else text)
    if not lines and not as_json:
        click.echo("no conversation is kept")


@click.command()
@CONFIG
@click.argument("changes", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option(
    "--version",
    type=click.IntRange(min=0),
    help="Write only if the profile has this version; default: the one read now.",
)
@_OF
@_JSON
def profile(config: str, changes: Sequence[str], version: int | None, user: str, *, as_json: bool) -> None:
    """Show a user's profile, or change fields of it; FIELD= removes one."""
    from glue_jobs.config.pipeline import load_config
    from retrieval import commands

    if any("=" not in change for change in changes):
        raise click.UsageError("a change is FIELD=VALUE, or FIELD= to remove the field")
    with commands.remembering(load_config(config)) as memory:
        profiles = memory.profiles
        stored = profiles.of(user)
        if changes:
            values: dict[str, Value] = dict(stored.values)
            for name, text in (change.split("=", 1) for change in changes):
                values.pop(name, None)
                if text:
                    values[name] = profiles.parsed(name, text)
            stored = profiles.put(user, values, stored.version if version is None else version)
    if as_json:
        click.echo(json.dumps({"version": stored.version, "profile": dict(stored.values)}, ensure_ascii=False))
    else:
        click.echo(
            "\n".join([f"version {stored.version}", *(f"{name}: {value}" for name, value in stored.values.items())])
        )


@click.command()
@CONFIG
@_OF
def forget(config: str, user: str) -> int:
    """Delete a user's profile, conversations and feedback now, and print a receipt; run again, it confirms it.

    Exit status 1: something is left, since the user asked meanwhile.
    """
    from glue_jobs.config.pipeline import load_config
    from retrieval import commands
    from retrieval.conversation.history import time_json

    loaded = load_config(config)
    with commands.remembering(loaded) as memory:
        counts = memory.conversations.forget(user)
    receipt = {"user": user, "pipeline": loaded.name, "at": time_json(time.time()), **counts}
    click.echo(json.dumps(receipt, ensure_ascii=False))
    return 1 if any(counts["left"].values()) else 0


def _listed(session: Session) -> tuple[dict[str, Any], str]:
    from retrieval.conversation.history import session_json

    shown = session_json(session)
    return shown, f"{shown['last_asked_at']}  {session.turns:>4} turns  {session.name}"


def _shown(exchange: Exchange, rating: Rating | None) -> tuple[dict[str, Any], str]:
    from retrieval.conversation.history import exchange_json

    shown = exchange_json(exchange, rating)
    answer = shown["answer"] if shown["answer"] is not None else f"({shown['state']})"
    lines = [f"{exchange.number}  {shown['asked_at']}", f"   Q: {exchange.question}", f"   A: {answer}"]
    if rating is not None:
        lines.append(f"   {rating.rating}: {rating.comment}" if rating.comment else f"   {rating.rating}")
    return shown, "\n".join(lines)
