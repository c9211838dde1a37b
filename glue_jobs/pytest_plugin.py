"""A pytest plugin: the fixture `ragstream_converge`, by which a suite puts its own recorded events through its own stores.

It is loaded with every pytest run where ragstream is installed, so it imports nothing until the fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--converge-histories` and `--converge-seed`."""
    group = parser.getgroup("ragstream")
    group.addoption("--converge-histories", type=int, default=200, help="histories of a `ragstream_converge` test")
    group.addoption("--converge-seed", type=int, default=None, help="the seed of all histories; default: a fresh one")


@pytest.fixture
def ragstream_converge(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`ragstream_converge(config, events, histories=None, seed=None, stores=(), history=None)`.

    Runs histories as `ragstream converge` does, and fails with the smallest one that ends otherwise than its source.
    """

    def check(
        config: str,
        events: Sequence[str],
        *,
        histories: int | None = None,
        seed: int | None = None,
        stores: Sequence[str] = (),
        history: str | None = None,
    ) -> None:
        from converge import report
        from glue_jobs.config.pipeline import load_config
        from glue_jobs.operations.converge import converge, recordings_of, settings_of

        loaded, option = load_config(config), request.config.getoption
        seed = option("--converge-seed") if seed is None else seed
        settings, chosen = settings_of(histories or option("--converge-histories"), seed, history)
        outcomes = converge(loaded, recordings_of(loaded, events), settings, stores, chosen)
        tests = [report.as_test(f, config, events) for outcome in outcomes for f in outcome.smallest]
        if tests:
            failing = ", ".join(f"{o.failing} in {o.lane}" for o in outcomes if o.failing)
            pytest.fail(
                f"of {settings.histories} histories (seed {settings.seed}) {failing}\n\n" + "\n".join(tests),
                pytrace=False,
            )

    return check
