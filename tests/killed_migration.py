"""`ragstream migrate` that is killed when it reaches a step: killed_migration.py STEP migrate CONFIG."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from glue_jobs.cli.main import main
from glue_jobs.operations.migrate import after as migration_after
from glue_jobs.operations.migrate import steps as migration
from tests.migrating import end_here

if __name__ == "__main__":
    _, step, *arguments = sys.argv

    def reached(_store: str, name: str) -> None:
        end_here(step, name)

    begun = migration.Migration

    def killed_migration(config: Any, to: Any, **_: Any) -> migration.Migration:
        return begun(config, to, on_step=reached)

    patched: Any = migration
    patched.Migration = killed_migration
    patched = migration_after
    patched.collect = partial(migration_after.collect, on_step=reached)
    main(arguments)
