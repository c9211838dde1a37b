"""What a run found: as a table for a person, as JSON, as Markdown, and a failing history as a test that can be run. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from converge.compare import Failure
from converge.histories import Delivery, History, Kill
from converge.run import Outcome
from schemas.errors import ConfigurationError

_IN_COMPANY = "It does not fail alone: only the whole run, by its seed, shows this again; it is not made smaller."


def to_json(history: History) -> str:
    """A history in one line: which recorded events (numbered from 0) come in which batch, to which reader, and where it dies."""
    deliveries = [[d.event, d.round, d.reader, int(d.late)] for d in history.deliveries]
    kills = [[kill.round, kill.step] for kill in history.kills]
    return json.dumps({"source": history.recording, "deliveries": deliveries, "kills": kills})


def of_json(text: str, space: int = 1) -> History:
    """The history that `to_json` wrote; raises ConfigurationError for anything else."""
    try:
        document = json.loads(text)
        deliveries = tuple(Delivery(e, n, reader, late=bool(late)) for e, n, reader, late in document["deliveries"])
        kills = tuple(Kill(number, step) for number, step in document["kills"])
        return History(str(document["source"]), space, 0, deliveries, kills)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(
            "--history: that is no history of `ragstream converge`",
            condition="HISTORY_INVALID",
            hint="give one line of JSON as a failing run printed it, or a file with it",
        ) from error


def as_test(failure: Failure, config: str, events: Sequence[str]) -> str:
    """A failing history as a test, for a suite where ragstream is installed."""
    lines = "\n".join(f"    # {line}" for line in (*failure.differences, *([] if failure.alone else [_IN_COMPANY])))
    return (
        f"def test_history_{failure.history.seed}_converges(ragstream_converge):\n"
        f"    # {failure.lane}, {len(failure.history.deliveries)} deliveries: [event, batch, reader, rejected first]\n"
        f"{lines}\n"
        f"    ragstream_converge(\n"
        f"        {config!r},\n"
        f"        {list(events)!r},\n"
        f"        history={to_json(failure.history)!r},\n"
        f"    )\n"
    )


def as_object(outcomes: Sequence[Outcome], seed: int, config: str, events: Sequence[str]) -> dict[str, Any]:
    """The run as one JSON object."""
    return {
        "seed": seed,
        "failing": sum(outcome.failing for outcome in outcomes),
        "stores": [
            {
                "store": outcome.lane,
                "histories": outcome.histories,
                "deaths": outcome.deaths,
                "failing": outcome.failing,
                "seconds": round(outcome.seconds, 1),
                "smallest": [
                    {
                        "store": failure.lane,
                        "seed": failure.history.seed,
                        "history": json.loads(to_json(failure.history)),
                        "differences": list(failure.differences),
                        "alone": failure.alone,
                        "test": as_test(failure, config, events),
                    }
                    for failure in outcome.smallest
                ],
            }
            for outcome in outcomes
        ],
    }


def as_markdown(outcomes: Sequence[Outcome]) -> str:
    """The run as a table."""
    head = "| store | histories | deaths | ended otherwise | seconds |\n|---|---|---|---|---|\n"
    return head + "".join(
        f"| {o.lane} | {o.histories:,} | {o.deaths} | {o.failing} | {o.seconds:.0f} |\n" for o in outcomes
    )
