"""A task of the DMS stand-in: a process that is started, ended and killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from local_stack import processes
from tests.e2e.pipeline import ROOT


class DmsTask:
    """One task. What its source has committed meanwhile is in the stream after the next `start`."""

    def __init__(
        self,
        dsn: str,
        tables: Sequence[str],
        stream: str,
        endpoint: Mapping[str, str],
        *options: str,
        log: Path,
        mark: str,
    ) -> None:
        """Name what it reads and where it writes; `mark` is the stack whose guardian ends it when the test run is killed."""
        self._command = [
            sys.executable, "-m", "local_stack.standins.dms.task", "--dsn", dsn, *(f"--table={table}" for table in tables),
            "--stream", stream, "--endpoint-url", endpoint["endpoint_url"], "--region", endpoint["region"], *options,
        ]  # fmt: skip
        self._environment = {processes.MARK: mark, "PYTHONPATH": str(ROOT)}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it loads its tables if it has not before."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)

    def stop(self) -> None:
        """End it once what it is sending is sent."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            finally:
                self.kill()

    def kill(self) -> None:
        """SIGKILL it."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait(30)
