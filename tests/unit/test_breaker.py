"""The breaker stops a batch that would make too many rejects, and nothing else."""

from __future__ import annotations

from collections import Counter

import pytest

from lake.landing.breaker import Breaker, CountsFile, Example, RejectsConfig, landing_of
from lake.landing.decoding import Tally
from schemas.errors import StoppedError

LIMITS = RejectsConfig(most_share=0.5, among=100, most_of_a_class=1000)
CANARY = "canary-77"


class Text:
    """What a checkpoint keeps."""

    def __init__(self) -> None:
        self.text: str | None = None
        self.writes = 0

    def write(self, text: str) -> None:
        self.text, self.writes = text, self.writes + 1

    def breaker(self, config: RejectsConfig | None = LIMITS, settings: str = "s") -> Breaker:
        return Breaker(landing_of("desk"), settings, config, CountsFile(lambda: self.text, self.write))


def tally(landed: int = 0, rejected: int = 0, table: str = "public.t", condition: str = "NO_KEY") -> Tally:
    result = Tally(landed=Counter({"public.t": landed}))
    if rejected:
        name = (table, condition)
        result.rejected[table] = result.rejected_as[name] = rejected
        result.examples[name] = Example("topic", "3", "77", "a record of public.t lacks a key column of id")
    return result


def test_a_table_rejected_whole_stops_landing_with_class_and_command() -> None:
    kept = Text()
    with pytest.raises(StoppedError) as stopped:
        kept.breaker().admit(0, tally(0, 100))
    assert stopped.value.condition == "TOO_MANY_REJECTS"
    for part in (
        "desk",
        "public.t",
        "NO_KEY",
        "topic/3 at 77",
        "--accept-rejects",
        "replay CONFIG --condition NO_KEY --table public.t",
        "100 of",
    ):
        assert part in str(stopped.value)
    assert kept.writes == 0


@pytest.mark.parametrize(("landed", "rejected"), [(0, 99), (100, 100), (900, 100), (5000, 1000), (0, 0)])
def test_few_rejects_or_a_small_share_of_them_land(landed: int, rejected: int) -> None:
    Text().breaker().admit(0, tally(landed, rejected))


def test_small_batches_add_up_over_restarts_and_the_same_batch_stays_refused() -> None:
    kept = Text()
    for batch in range(9):
        kept.breaker().admit(batch, tally(1, 10))
    for _ in range(3):
        with pytest.raises(StoppedError, match="of the last 110 records"):
            kept.breaker().admit(9, tally(1, 10))


def test_a_batch_that_runs_again_counts_once_and_was_admitted() -> None:
    kept = Text()
    for _ in range(50):
        kept.breaker().admit(7, tally(1, 10))


def test_one_class_stops_landing_however_small_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1e9
    monkeypatch.setattr("lake.landing.breaker.time.time", lambda: now)
    running = Text().breaker()
    for batch in range(10):
        running.admit(batch, tally(10_000, 100))
    with pytest.raises(StoppedError, match="1001 records"):
        running.admit(10, tally(10_000, 1))
    now += 24 * 3600
    running.admit(10, tally(10_000, 1))


def test_records_without_a_table_count_against_all_of_the_source() -> None:
    running = Text().breaker()
    running.admit(0, tally(300, 200, table="", condition="MALFORMED_JSON"))
    with pytest.raises(StoppedError, match="of the source"):
        running.admit(1, tally(0, 600, table="", condition="MALFORMED_JSON"))


def test_old_rejects_fade_behind_what_lands() -> None:
    running = Text().breaker()
    running.admit(0, tally(60, 50))
    for batch in range(1, 20):
        running.admit(batch, tally(200))
    running.admit(20, tally(30, 60))


def test_another_configuration_begins_anew_and_an_accepted_run_does_too() -> None:
    kept = Text()
    kept.breaker().admit(0, tally(0, 90))
    kept.breaker(settings="mended").admit(1, tally(0, 90))
    kept.breaker(None, "mended").admit(2, tally(0, 100_000))
    kept.breaker(settings="mended").admit(3, tally(0, 90))
    with pytest.raises(StoppedError):
        kept.breaker(settings="mended").admit(4, tally(0, 90))


def test_a_limit_can_be_lifted() -> None:
    Text().breaker(RejectsConfig(most_share=None, most_of_a_class=None)).admit(0, tally(0, 10**6))
