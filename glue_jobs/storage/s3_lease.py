"""One driver a checkpoint on S3: an object that its holder replaces every few seconds by conditional puts.

No clocks are compared: whoever waits takes the lease once its ETag has stood still for EXPIRY_SECONDS on the waiter's own clock,
and a holder that has not renewed it for a while asks S3 before it commits anything more. Of two that put at once S3 lets one
win (AWS, "How to prevent object overwrites with conditional writes").
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from glue_jobs.storage.s3 import bucket_client
from schemas.errors import ConfigurationError, StoppedError, UnavailableError

_LOG = logging.getLogger(__name__)

RENEW_SECONDS = 10.0
EXPIRY_SECONDS = 45.0
"""How long a lease outlives its last renewal: what a restart waits at most after a kill."""
STALE_SECONDS = 30.0
"""Age at which a holder renews the lease before it commits; the rest of EXPIRY_SECONDS is for what it has begun."""
_POLL_SECONDS = 1.0
_TELL_SECONDS = 10.0
_OTHER_FIRST = frozenset({404, 409, 412})
"""Answers of S3 to a conditional put whose condition does not hold, or that met another put."""


class LeaseObject(Protocol):
    """Where the lease stands."""

    def read(self) -> tuple[str, str] | None:
        """Text and ETag; None where there is none."""

    def put(self, text: str, etag: str | None) -> str | None:
        """Replace the version of that ETag, or create it; gives the new ETag, None where another was first."""


class S3Object:
    """An object of a bucket; its client renews its credentials by itself."""

    def __init__(self, location: str) -> None:
        """Take s3a://BUCKET/KEY; nothing is asked yet."""
        self._bucket, _, self._key = location.split("://", 1)[1].partition("/")
        self._client = bucket_client()

    def read(self) -> tuple[str, str] | None:
        """Ask S3; raises UnavailableError where it does not answer."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            response = self._client.get_object(Bucket=self._bucket, Key=self._key)
            return response["Body"].read().decode(), str(response["ETag"])
        except ClientError as error:
            if _status(error) == 404:
                return None
            raise _unavailable(error) from None
        except BotoCoreError as error:
            raise _unavailable(error) from None

    def put(self, text: str, etag: str | None) -> str | None:
        """Put on a condition; raises UnavailableError where S3 does not answer."""
        from botocore.exceptions import BotoCoreError, ClientError

        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        try:
            done = self._client.put_object(Bucket=self._bucket, Key=self._key, Body=text.encode(), **condition)
            return str(done["ETag"])
        except ClientError as error:
            if _status(error) in _OTHER_FIRST:
                return None
            raise _unavailable(error) from None
        except BotoCoreError as error:
            raise _unavailable(error) from None


@dataclass(frozen=True)
class Holder:
    """Who has the lease."""

    host: str
    pid: int
    since: str
    process: str
    """The machine's boot, the namespace of process ids, and the start of the process: the same for no other process."""
    lease: str = ""
    """The same in all puts of one lease."""
    puts: int = 0
    """How many there were before: no two have one text, and so one ETag."""
    released: bool = False

    def __str__(self) -> str:
        """Say who for people."""
        return f"process {self.pid} on {self.host}, since {self.since}"

    def is_gone(self) -> bool:
        """Whether it has ended for certain: a process of this machine that is there no more."""
        machine, _, started = self.process.rpartition("/")
        here, _, _ = _process(os.getpid()).rpartition("/")
        return self.released or (machine == here and _started(self.pid) != started)


def this_process() -> Holder:
    """The holder that this process is."""
    since = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return Holder(socket.gethostname(), os.getpid(), since, _process(os.getpid()))


@dataclass
class S3Lease:
    """The lease of one query; safe to use from several threads."""

    location: LeaseObject
    query: str
    holder: Holder = field(default_factory=this_process)
    clock: Callable[[], float] = field(default=lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
    """Seconds; it goes on while the process or the machine is suspended."""
    _id: str = field(default_factory=lambda: uuid.uuid4().hex)
    _puts: int = 0
    _etag: str | None = None
    _renewed: float = 0.0
    _lost: bool = False
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def acquire(self, stop: threading.Event, wait: Callable[[float], object] | None = None) -> bool:
        """Take the lease, waiting for one that nobody renews any more to expire; False when the driver was asked to stop.

        Raises:
            ConfigurationError: another driver holds the lease and renews it.
        """
        first: tuple[str, float] | None = None
        logged_at = 0.0
        while not stop.is_set():
            try:
                stored = self.location.read()
                other_holder, etag = (Holder(**json.loads(stored[0])), stored[1]) if stored else (None, None)
                if other_holder is None or etag is None or other_holder.is_gone():
                    if self._put(etag):
                        return True
                    continue
                first = first or (etag, self.clock())
                if etag != first[0]:
                    raise _in_use(self.query, other_holder)
                seconds_left = EXPIRY_SECONDS - (self.clock() - first[1])
                if seconds_left <= 0:
                    if self._put(etag):
                        return True
                    continue
                if not logged_at or logged_at - seconds_left >= _TELL_SECONDS:
                    logged_at = seconds_left
                    context = {"query": self.query, "holder": str(other_holder), "at_most_s": round(seconds_left)}
                    _LOG.warning("waiting for another driver's lease to expire", extra={"context": context})
            except UnavailableError as error:
                _LOG.warning(
                    "the lease cannot be read", extra={"context": {"query": self.query, "error": error.message}}
                )
            (wait or stop.wait)(_POLL_SECONDS)
        return False

    def renew(self) -> None:
        """Show that this driver lives; notes where another has taken the lease. Raises UnavailableError."""
        with self._lock:
            if not self._lost and not self._put(self._etag):
                self._lost = True

    def confirm(self) -> None:
        """Return if this driver still has the lease; asked before each commit.

        Raises:
            StoppedError: another driver has taken it.
            UnavailableError: the last renewal is too long ago, and S3 does not answer.
        """
        with self._lock:
            if self.clock() - self._renewed > STALE_SECONDS:
                self.renew()
        self.raise_if_lost()

    def raise_if_lost(self) -> None:
        """Raise StoppedError where it is known that another driver has taken the lease; asks nobody."""
        if self._lost:
            raise StoppedError(
                f"query {self.query}: this driver was suspended, or did not reach S3, for longer than {EXPIRY_SECONDS:.0f} s, "
                "and another has taken its checkpoint",
                condition="LEASE_LOST", hint="nothing is lost: the other driver goes on from the last commit",
            )  # fmt: skip

    def release(self) -> None:
        """Let the next driver begin at once."""
        with self._lock, contextlib.suppress(UnavailableError):
            if not self._lost:
                self._put(self._etag, released=True)

    @contextlib.contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew it on a thread of its own, and release it at the end."""
        done = threading.Event()

        def run() -> None:
            while not done.wait(RENEW_SECONDS) and not self._lost:
                try:
                    self.renew()
                except UnavailableError as error:
                    context = {"query": self.query, "error": error.message}
                    _LOG.warning("the lease cannot be renewed", extra={"context": context})

        thread = threading.Thread(target=run, name=f"{self.query}-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.release()

    def _put(self, etag: str | None, *, released: bool = False) -> bool:
        """Put in the place of that version, or of one that this lease put itself without getting the answer."""
        while True:
            asked_at = self.clock()
            self._puts += 1
            mine = replace(self.holder, lease=self._id, puts=self._puts, released=released)
            new_etag = self.location.put(json.dumps(asdict(mine)), etag)
            if new_etag is not None:
                self._etag, self._renewed = new_etag, asked_at
                return True
            stored = self.location.read()
            if stored is None or Holder(**json.loads(stored[0])).lease != self._id:
                return False
            etag = stored[1]


def _in_use(query: str, holder: Holder) -> ConfigurationError:
    return ConfigurationError(
        f"query {query}: another driver runs it on this checkpoint: {holder}",
        condition="CHECKPOINT_IN_USE",
        hint=f"stop it, or give this run a checkpoint of its own; a killed one's lease expires within {EXPIRY_SECONDS:.0f} s",
    )


def _status(error: Any) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def _unavailable(error: Exception) -> UnavailableError:
    code = (getattr(error, "response", None) or {}).get("Error", {}).get("Code", "")
    return UnavailableError(
        f"checkpoint: S3 does not answer for the lease ({code or type(error).__name__})",
        hint="check the network, the credentials and the rights s3:GetObject and s3:PutObject on the checkpoint",
    )


def _process(pid: int) -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}/{_started(pid)}"


def _started(pid: int) -> str:
    """When a process of this machine began, in ticks since its boot (proc(5), stat); empty where there is none that runs."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if state in "ZX" else rest[18]
