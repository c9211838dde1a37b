"""Valkey in cluster mode, the engine of Amazon MemoryDB, as one node that has every slot."""

from __future__ import annotations

import contextlib

import valkey

from local_stack import cache
from local_stack.ports import HOST
from local_stack.service import Endpoint, Service


class MemoryDB(Service):
    """One node. What it acknowledged is there again after `kill` and `start`, as in MemoryDB.

    This build of Valkey has no TLS: `FaultProxy` ends it before a node. Users and replicas are a test's own.
    """

    part = "memorydb"
    port_names = ("client", "bus")

    @property
    def endpoint(self) -> Endpoint:
        """`url`, without TLS and without a user."""
        return {"url": f"redis://{HOST}:{self.port}"}

    def command(self) -> list[str]:
        """Run it in the foreground, with every write on disk before its answer."""
        self.data.mkdir(parents=True, exist_ok=True)
        words = (word for name, value in self.settings().items() for word in (f"--{name}", value))
        return [str(cache.valkey_server()), *words]

    def settings(self) -> dict[str, str]:
        """Valkey's configuration."""
        return {
            "port": str(self.port), "bind": HOST, "dir": str(self.data), "cluster-enabled": "yes",
            "cluster-port": str(self.port_of("bus")), "cluster-require-full-coverage": "no", "appendonly": "yes",
            "appendfsync": "always", "save": "", "maxmemory-policy": "noeviction", "enable-debug-command": "local",
        }  # fmt: skip

    def handshake(self) -> None:
        """Give the node its slots, and write through a client of the cluster."""
        owned = contextlib.suppress(valkey.exceptions.ResponseError)  # it has its slots since an earlier start
        with valkey.Valkey(host=HOST, port=self.port, socket_timeout=2.0) as node, owned:
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        with valkey.ValkeyCluster(host=HOST, port=self.port, socket_timeout=2.0) as cluster:
            cluster.set("handshake", "1", ex=1)
