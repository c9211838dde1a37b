"""A toy server: an empty folder over HTTP."""

from __future__ import annotations

import sys
import urllib.request

from local_stack.ports import HOST
from local_stack.service import Endpoint, Service


class Toy(Service):
    """Answers GET."""

    part = "toy"

    @property
    def endpoint(self) -> Endpoint:
        """`url`."""
        return {"url": f"http://{HOST}:{self.port}"}

    def command(self) -> list[str]:
        """Run it in the foreground."""
        return [sys.executable, "-m", "http.server", str(self.port), "--bind", HOST, "--directory", str(self.directory)]

    def handshake(self) -> None:
        """Ask for anything."""
        with urllib.request.urlopen(self.endpoint["url"], timeout=2.0):  # noqa: S310 - loopback
            pass
