"""A lease on a checkpoint on S3: an object that its holder renews every few seconds by conditional puts.

No clocks are compared: a waiting driver takes the lease once its ETag has not changed for EXPIRY_SECONDS on the waiter's own
clock, and a holder whose last renewal is older than STALE_SECONDS renews it before the next commit. Of two concurrent puts S3
accepts one (AWS, "How to prevent object overwrites with conditional writes").
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
"""How long a lease is valid after its last renewal: the most that a restart waits after a kill."""
STALE_SECONDS = 30.0
"""Age at which a holder renews the lease before it commits; the rest of EXPIRY_SECONDS is for the commit in flight."""
_POLL_SECONDS = 1.0
_LOG_SECONDS = 10.0
_PUT_REFUSED = frozenset({404, 409, 412})
"""S3's status for a conditional put whose condition does not hold, or that met a concurrent put."""


class LeaseObject(Protocol):
    """Storage of the lease: one object."""

    def read(self) -> tuple[str, str] | None:
        """Text and ETag; None where there is no object."""

    def put(self, text: str, etag: str | None) -> str | None:
        """Replace the version of that ETag, or create the object; returns the new ETag, None if the condition failed."""


class S3Object:
    """An object of a bucket; its client renews its credentials."""

    def __init__(self, location: str) -> None:
        """Take s3a://BUCKET/KEY; no request is made yet."""
        self._bucket, _, self._key = location.split("://", 1)[1].partition("/")
        self._client = bucket_client()

    def read(self) -> tuple[str, str] | None:
        """Read the object; raises UnavailableError where S3 does not answer."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            response = self._client.get_object(Bucket=self._bucket, Key=self._key)
            return response["Body"].read().decode(), str(response["ETag"])
        except (BotoCoreError, ClientError) as error:
            if _status(error) == 404:
                return None
            raise _unavailable(error) from None

    def put(self, text: str, etag: str | None) -> str | None:
        """Put conditionally; raises UnavailableError where S3 does not answer."""
        from botocore.exceptions import BotoCoreError, ClientError

        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        try:
            done = self._client.put_object(Bucket=self._bucket, Key=self._key, Body=text.encode(), **condition)
            return str(done["ETag"])
        except (BotoCoreError, ClientError) as error:
            if _status(error) in _PUT_REFUSED:
                return None
            raise _unavailable(error) from None


@dataclass(frozen=True)
class Holder:
    """The process that has the lease."""

    host: str
    pid: int
    since: str
    process: str
    """Boot id, namespace of process ids and start time of the process: unique."""
    lease: str = ""
    """Id of the lease: the same in all its puts."""
    puts: int = 0
    """Number of the put, so that no two puts have the same text and ETag."""
    released: bool = False

    def __str__(self) -> str:
        """Render for messages."""
        return f"process {self.pid} on {self.host}, since {self.since}"

    def is_gone(self) -> bool:
        """Whether it released the lease, or was a process of this machine that no longer runs."""
        machine, _, started = self.process.rpartition("/")
        here, _, _ = _process(os.getpid()).rpartition("/")
        return self.released or (machine == here and _started(self.pid) != started)


def this_process() -> Holder:
    """This process as a holder."""
    since = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return Holder(socket.gethostname(), os.getpid(), since, _process(os.getpid()))


@dataclass
class S3Lease:
    """The lease of one query; safe to use from several threads."""

    location: LeaseObject
    query: str
    holder: Holder = field(default_factory=this_process)
    clock: Callable[[], float] = field(default=lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
    """Seconds; it also advances while the process or the machine is suspended."""
    _id: str = field(default_factory=lambda: uuid.uuid4().hex)
    _puts: int = 0
    _etag: str | None = None
    _renewed: float = 0.0
    _lost: bool = False
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def acquire(self, stop: threading.Event, wait: Callable[[float], object] | None = None) -> bool:
        """Acquire the lease, waiting until one that is no longer renewed expires; False after a stop request.

        Raises:
            ConfigurationError: another driver has the lease and renews it.
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
                if not logged_at or logged_at - seconds_left >= _LOG_SECONDS:
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
        """Renew the lease, or mark it as lost if another driver has taken it. Raises UnavailableError."""
        with self._lock:
            if not self._lost and not self._put(self._etag):
                self._lost = True

    def confirm(self) -> None:
        """Return if this driver still has the lease; called before each commit.

        Raises:
            StoppedError: another driver has taken it.
            UnavailableError: the last renewal is too long ago, and S3 does not answer.
        """
        with self._lock:
            if self.clock() - self._renewed > STALE_SECONDS:
                self.renew()
        self.raise_if_lost()

    def raise_if_lost(self) -> None:
        """Raise StoppedError if another driver is known to have taken the lease; makes no request."""
        if self._lost:
            raise StoppedError(
                f"query {self.query}: this driver was suspended, or did not reach S3, for longer than {EXPIRY_SECONDS:.0f} s, "
                "and another has taken its checkpoint",
                condition="LEASE_LOST", hint="nothing is lost: the other driver resumes from the last commit",
            )  # fmt: skip

    def release(self) -> None:
        """Release the lease, so that the next driver need not wait for its expiry."""
        with self._lock, contextlib.suppress(UnavailableError):
            if not self._lost:
                self._put(self._etag, released=True)

    @contextlib.contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew the lease on a thread of its own, and release it at the end."""
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
        """Replace that version, or a version that this lease put itself without receiving the response."""
        while True:
            asked_at = self.clock()
            self._puts += 1
            holder = replace(self.holder, lease=self._id, puts=self._puts, released=released)
            new_etag = self.location.put(json.dumps(asdict(holder)), etag)
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


def _status(error: Exception) -> int:
    """S3's status; 0 where it did not respond."""
    response: Any = getattr(error, "response", None) or {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


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
