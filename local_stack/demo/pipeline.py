"""The demo's own processes: the pipeline and the DMS task, marked as parts of the stack so that `stack down` ends them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from local_stack.processes import MARK
from local_stack.stack import Stack
from schemas.errors import PipelineError, StoppedError

CONFIG = Path("job_configs/helpdesk.yaml")
TOPIC, STREAM, TICKETS = "helpdesk.public.articles", "helpdesk", "public.tickets"
_SERVE_SECONDS = 60.0
SERVING = re.compile(r"^serving .* at (http\S+)$", re.MULTILINE)


class DemoPipeline:
    """Starts the demo's processes beside the servers, and notices when one ends."""

    def __init__(self, folder: Path, stack: Stack, config: Path = CONFIG) -> None:
        """Take the clone's folder, its stack, and the pipeline's configuration."""
        self._folder, self._stack, self.config = folder, stack, config
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def log(self) -> Path:
        """The pipeline's log file."""
        return Path(".ragstream/run/pipeline/log")

    def create_streams(self) -> None:
        """Create the topic and the stream, so that the pipeline can start before they have records."""
        self._stack.broker.create_topic(TOPIC, 2)
        self._stack.aws.client("kinesis").create_stream(StreamName=STREAM, ShardCount=1)

    def start(self) -> None:
        """Run the pipeline, all jobs in one driver."""
        self._spawn("pipeline", [sys.executable, "-m", "glue_jobs", "run", str(self.config)])

    def apply_capture(self) -> None:
        """Create the Debezium connector by `ragstream capture --apply`."""
        command = [sys.executable, "-m", "glue_jobs", "capture", str(self.config), "--apply"]
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PipelineError(f"capture --apply: {done.stderr.strip()[-500:]}")

    def start_dms(self) -> None:
        """Run the DMS task for the tickets."""
        endpoints = self._stack.endpoints()
        aws = endpoints["aws"]
        options = {
            "--dsn": endpoints["postgres"]["dsn"], "--table": TICKETS, "--stream": STREAM, "--region": aws["region"],
            "--endpoint-url": aws["endpoint_url"], "--access-key": aws["access_key"], "--secret-key": aws["secret_key"],
        }  # fmt: skip
        flat = [word for pair in options.items() for word in pair]
        self._spawn("dms", [sys.executable, "-m", "local_stack.standins.dms.task", *flat])

    def serve(self) -> str:
        """Run the service with the page, and return its address once it answers; `stack down` ends it."""
        self._spawn("serve", [sys.executable, "-m", "glue_jobs", "serve", str(self.config), "--port", "0"])
        log, until = self._folder / ".ragstream/run/serve/log", time.monotonic() + _SERVE_SECONDS
        while not (line := SERVING.search(log.read_text(errors="replace"))):
            self.raise_if_ended()
            if time.monotonic() > until:
                raise StoppedError(f"the service did not answer within {_SERVE_SECONDS:.0f} s", hint=str(log))
            time.sleep(0.1)
        return line[1]

    def raise_if_ended(self) -> None:
        """Raise when one of the processes has ended by itself."""
        for name, child in self._children.items():
            if child.poll() is not None:
                log = self._folder / f".ragstream/run/{name}/log"
                lines = log.read_text(errors="replace").splitlines()[-5:]
                raise StoppedError(f"the {name} ended with status {child.returncode}", hint="\n".join(lines))

    def _spawn(self, name: str, command: list[str]) -> None:
        home = self._folder / ".ragstream/run" / name
        home.mkdir(parents=True, exist_ok=True)
        with (home / "log").open("ab") as log:
            self._children[name] = self._popen(command, log, home)

    def _popen(self, command: list[str], log: IO[bytes], home: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, MARK: str(home), "PYTHONPATH": str(self._folder)},
        )  # fmt: skip
