"""One OpenSearch node with k-NN, from the distribution without plugins that Maven has."""

from __future__ import annotations

from pathlib import Path

from opensearchpy import OpenSearch as Client

from local_stack import cache, privileges
from local_stack.ports import HOST
from local_stack.service import Endpoint, Service, program
from schemas.errors import UnavailableError

_SETTINGS = """
discovery.type: single-node
action.auto_create_index: false  # as a careful cluster has it: a write to an index that nobody made is an error
cluster.routing.allocation.disk.threshold_enabled: false  # a full disk of the machine is no business of a test
node.processors: 2
"""
_LOGGING = """
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}]%marker %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""
_THREADS = "org.opensearch.secure_sm.SecuredForkJoinWorkerThreadFactory"
_JAVA = (
    "-Xms512m", "-Xmx512m", "-XX:+UseSerialGC", "-Xshare:auto", "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true", "-Dfile.encoding=UTF-8", "-Djna.nosys=true", "-Dio.netty.noUnsafe=true",
    "-Dio.netty.noKeySetOptimization=true", "-Dio.netty.recycler.maxCapacityPerThread=0", "-Dlog4j2.disable.jmx=true",
    "-Dio.netty.allocator.numDirectArenas=0", "-Dlog4j.shutdownHookEnabled=false", "-Dopensearch.bundled_jdk=false",
    "-Dopensearch.distribution.type=zip",
    f"-Djava.util.concurrent.ForkJoinPool.common.threadFactory={_THREADS}",
)  # fmt: skip
"""What the distribution's own script gives the JVM, without that script's two JVMs of its own; and a small heap."""


class OpenSearch(Service):
    """One node that is its own cluster. What it acknowledged is there again after `kill` and `start`.

    k-NN runs on Lucene alone: an index of another engine needs native libraries, and without them ends the node.
    """

    part = "opensearch"
    port_names = ("client", "transport")
    start_timeout = 120.0

    @property
    def endpoint(self) -> Endpoint:
        """`url`: of its REST interface, without TLS and without a password."""
        return {"url": self.url}

    def prepare(self) -> None:
        """Write its configuration, and give its folders to the user that it runs as."""
        settings = {
            "network.host": HOST, "http.port": self.port, "transport.port": self.port_of("transport"),
            "path.data": self._folder("data"), "path.logs": self._folder("logs"),
        }  # fmt: skip
        configuration = self._folder("config")
        (configuration / "log4j2.properties").write_text(_LOGGING)
        lines = [f'{name}: "{value}"\n' for name, value in settings.items()]
        (configuration / "opensearch.yml").write_text(_SETTINGS + "".join(lines))
        for path in (self.directory, *self.directory.iterdir(), *configuration.iterdir()):
            if path.name not in {"service.json", "log"}:
                privileges.give_to_nobody(path)

    def command(self) -> list[str]:
        """Run the node in the foreground."""
        home = cache.opensearch_home()
        return [
            *privileges.without_root([home, home / "lib", self.directory]), program("java", "Install Java 17."), *_JAVA,
            f"-Djava.io.tmpdir={self._folder('tmp')}", f"-Dopensearch.path.home={home}",
            f"-Dopensearch.path.conf={self._folder('config')}", "-cp", f"{home}/lib/*",
            "org.opensearch.bootstrap.OpenSearch",
        ]  # fmt: skip

    def handshake(self) -> None:
        """Request the cluster's health."""
        with self.client(timeout=2) as client:
            if client.cluster.health()["status"] == "red":
                raise UnavailableError(f"{self.name} has not found all its shards yet")

    def client(self, timeout: float = 30) -> Client:
        """Return a client of its own kind; the timeout of a request is in seconds."""
        return Client(self.endpoint["url"], timeout=timeout, max_retries=0)

    def _folder(self, name: str) -> Path:
        folder = self.directory / name
        folder.mkdir(exist_ok=True)
        return folder
