"""A shard of MemoryDB as AWS runs it: a primary and a replica of Valkey, TLS before each, users with passwords and rights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import valkey

from local_stack.certificates import self_signed
from local_stack.faults.tcp import FaultProxy
from local_stack.ports import HOST
from local_stack.servers.memorydb import MemoryDB
from memory.memorydb.client import COMMANDS
from tests.waiting import eventually

ADMIN, USER, PASSWORD = "admin", "app", "p@ss/word:1"
PREFIX = "talks"
TURN_SECONDS = 30.0
"""How long a session is held by a turn whose store went away between its claim and its answer."""


class Node(MemoryDB):
    """One node, which clients are told to reach by another port."""

    def tell(self, client_port: int) -> None:
        """Announce this port to clients; before the start."""
        self.save(announced=client_port)

    def prepare(self) -> None:
        """Write the users: nobody comes in without a name."""
        self.directory.mkdir(parents=True, exist_ok=True)
        users = (
            "user default off",
            f"user {ADMIN} on >{PASSWORD} ~* &* +@all",
            f"user {USER} on >{PASSWORD} -@all {COMMANDS.format(PREFIX)}",
        )
        (self.directory / "users.acl").write_text("".join(f"{line}\n" for line in users))

    def settings(self) -> dict[str, str]:
        """Users, and what a client hears of the node."""
        return super().settings() | {
            "aclfile": str(self.directory / "users.acl"), "primaryuser": ADMIN, "primaryauth": PASSWORD,
            "cluster-announce-client-port": str(self.saved("announced")), "cluster-announce-hostname": "localhost",
            "cluster-preferred-endpoint-type": "hostname", "cluster-allow-replica-migration": "no",
        }  # fmt: skip

    def admin(self) -> valkey.Valkey:
        """A connection that may do everything, without TLS."""
        return valkey.Valkey(
            host=HOST, port=self.port, username=ADMIN, password=PASSWORD, decode_responses=True, socket_timeout=5.0
        )

    def handshake(self) -> None:
        """Ask it as the administrator."""
        with self.admin() as node:
            node.ping()


class SecureMemoryDB:
    """The two nodes and the proxies that end TLS before them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes = [Node(folder / name) for name in ("first", "second")]
        self.proxies = [FaultProxy(node.port, self.certificate("localhost")) for node in self.nodes]

    def start(self) -> Self:
        """Start both nodes; the first one has all slots, the second one is its replica."""
        for node, proxy in zip(self.nodes, self.proxies, strict=True):
            node.tell(proxy.port)
            node.start()
            proxy.start()
        first, second = self.nodes
        with first.admin() as one, second.admin() as other:
            one.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
            other.execute_command("CLUSTER", "MEET", HOST, str(first.port), str(first.port_of("bus")))
            name = str(one.execute_command("CLUSTER", "MYID"))
            eventually(lambda: name in str(other.execute_command("CLUSTER", "NODES")))
            other.execute_command("CLUSTER", "REPLICATE", name)
            eventually(lambda: other.info("replication").get("master_link_status") == "up")
            eventually(lambda: one.cluster("info")["cluster_state"] == "ok")
        return self

    def stop(self) -> None:
        """Stop nodes and proxies."""
        for node, proxy in zip(self.nodes, self.proxies, strict=True):
            node.stop()
            proxy.stop()

    def certificate(self, name: str) -> Path:
        """A certificate of that name by an authority of its own (`authority`), and its key, in one file."""
        pem = self.folder / f"{name}.pem"
        return pem if pem.exists() else self_signed(self.folder, name, *([HOST] if name == "localhost" else []))

    def authority(self, name: str = "localhost") -> str:
        """The file of the authority that a client has to trust."""
        return str(self.certificate(name).with_suffix(".crt"))

    def section(self, **changes: Any) -> dict[str, Any]:
        """The `memory` section of a configuration."""
        url = f"rediss://{USER}:p%40ss%2Fword%3A1@localhost:{self.proxies[0].port}"
        settings = {
            "prefix": PREFIX,
            "tls_ca_file": self.authority(),
            "timeout_seconds": 2.0,
            "turn_timeout": TURN_SECONDS,
        }
        return {"type": "memorydb", "url": url} | settings | changes

    def grant(self, rights: str) -> None:
        """Give the user these rights and no others, on both nodes."""
        for node in self.nodes:
            with node.admin() as admin:
                admin.execute_command("ACL", "SETUSER", USER, "reset", "on", f">{PASSWORD}", "-@all", *rights.split())

    def settle(self, primary: int) -> None:
        """Make a node the primary, in turn, and wait until the other one has all that it has and clients hear of it.

        A primary names a replica to clients once it has heard from it how far it is.
        """
        node, other = self.nodes[primary], self.nodes[1 - primary]
        with node.admin() as one, other.admin() as two:
            eventually(lambda: {client.info("replication")["role"] for client in (one, two)} == {"master", "slave"})
            replica = one if one.info("replication")["role"] == "slave" else two
            eventually(lambda: replica.info("replication")["master_link_status"] == "up")
            if replica is one:
                one.execute_command("CLUSTER", "FAILOVER")
            eventually(lambda: two.info("replication").get("master_link_status") == "up")
            eventually(lambda: len(one.execute_command("CLUSTER", "SLOTS")[0]) > 3)

    def kill_in_step(self, primary: int) -> None:
        """Kill the primary once the replica has all that was acknowledged; the replica is no primary yet.

        MemoryDB promises that by its transaction log; two nodes of Valkey have it while writes are held up.
        """
        node, other = self.nodes[primary], self.nodes[1 - primary]
        with node.admin() as one, other.admin() as two:
            one.execute_command("CLIENT", "PAUSE", "10000", "WRITE")
            written = one.info("replication")["master_repl_offset"]
            eventually(lambda: two.info("replication")["slave_repl_offset"] >= written)
            node.kill()

    def take_over(self, replica: int) -> None:
        """Make a replica whose primary is dead the primary."""
        with self.nodes[replica].admin() as node:
            node.execute_command("CLUSTER", "FAILOVER", "TAKEOVER")
