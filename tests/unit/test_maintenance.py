"""When a lake is vacuumed."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest

from lake import maintenance
from lake.layout import LakeLayout

HOUR = 3600.0


def test_drivers_that_never_get_a_day_old_vacuum_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A year of drivers of six hours: 91 are expected, with a spread of 8."""
    now, vacuumed = [0.0], list[str]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(maintenance, "open_table", lambda _: None)
    monkeypatch.setattr(maintenance, "compact", lambda *_: None)
    monkeypatch.setattr(maintenance, "vacuum", lambda _, path: vacuumed.append(path))
    for _ in range(365):
        driver = maintenance.Maintenance(cast("Any", None), LakeLayout("/lake"))
        for _ in range(6):
            now[0] += HOUR
            driver.run()
    assert 40 < vacuumed.count("/lake/changes") < 150
