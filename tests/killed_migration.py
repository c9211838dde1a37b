"""`ragstream migrate` as a process of its own, which ends as kill -9 ends it once it has reached a step."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

from glue_jobs.cli.main import main
from glue_jobs.operations.migrate import after as migration_after
from glue_jobs.operations.migrate import steps as migration
from tests.processes import PROCESSES


def killed_at(config: Path, step: str, *options: str) -> None:
    """Run the command, and end it and its children at a step."""
    log = config.with_suffix(".log")
    process = PROCESSES.Process(target=_migrate, args=(str(log), step, "migrate", str(config), *options))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, log.read_text()
    process.close()


def _migrate(log: str, step: str, *arguments: str) -> None:
    os.setsid()
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    with Path(log).open("ab") as output:
        os.dup2(output.fileno(), sys.stdout.fileno())
        os.dup2(output.fileno(), sys.stderr.fileno())

    def reached(_store: str, name: str) -> None:
        if name == step:
            os.killpg(0, signal.SIGKILL)

    class KilledMigration(migration.Migration):
        """It makes no plan: what is killed is the move."""

        def __init__(self, config: Any, to: Any, **_: Any) -> None:
            super().__init__(config, to, on_step=reached)

        def is_begun(self) -> bool:
            return True

    patched: Any = migration
    patched.Migration = KilledMigration
    patched = migration_after
    patched.collect = partial(migration_after.collect, on_step=reached)
    main(list(arguments))
