"""The demo of all stores: one commit reaches five stores, one store is killed and restarted, and nothing is missing.

Delta, Redshift, pgvector, OpenSearch and DocumentDB are fed by one `ragstream run`; Redshift and DocumentDB are stand-ins.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import yaml
from rich.table import Table

from glue_jobs.config.pipeline import PipelineConfig, decode_context
from lake.history.current import current_rows
from lake.layout import LakeLayout
from local_stack.demo.answers import EDITED, QUESTIONS, Demo, DemoError, console
from local_stack.demo.arrivals import Arrivals, Place
from local_stack.demo.pipeline import CONFIG as HELPDESK
from local_stack.demo.store_readers import open_reader, row_id
from local_stack.servers.aws import REGION
from local_stack.stack import DEFAULT_PARTS
from retrieval import commands
from schemas.errors import PipelineError
from sinks import SinkConfig

CONFIG = Path(".ragstream/helpdesk-stores.yaml")
"""The helpdesk's pipeline with all stores; the demo writes it from the one in `job_configs`."""
KILLED = "opensearch"
_ARTICLES = "public.articles"
_BUCKET = "helpdesk-staging"
_FACTS_LOGIN = "facts_reader"
"""The user who reads facts, and its password on this machine."""
_STORES: dict[str, Any] = {
    "sinks": [
        {"type": "pgvector", "dsn": "${secret:vectors}", "table": "helpdesk"},
        {
            "type": "opensearch", "url": "${env:OPENSEARCH_URL}", "index": "helpdesk", "replicas": 0, "deadline": "3s",
            "timeout_seconds": 5,
        },
        {"type": "documentdb", "uri": "${env:DOCUMENTDB_URI}", "database": "helpdesk", "collection": "helpdesk"},
    ],
    "warehouse": {
        "type": "redshift", "host": "${env:REDSHIFT_HOST}", "port": "${env:REDSHIFT_PORT}", "ssl": False,
        "database": "${env:REDSHIFT_DATABASE}", "user": "${env:REDSHIFT_USER}", "password": "${secret:warehouse_password}",
        "schema": "desk", "staging": f"s3://{_BUCKET}/loads", "load_every": "60s", "region": "${env:AWS_REGION}",
        "endpoint_url": "${env:AWS_ENDPOINT_URL}", "access_key": "${env:AWS_ACCESS_KEY_ID}",
        "secret_key": "${env:AWS_SECRET_ACCESS_KEY}",
    },
    "facts": {
        "user": _FACTS_LOGIN, "password": _FACTS_LOGIN,
        "queries": [{
            "name": "open_tickets", "description": "how many tickets are open",
            "sql": "SELECT priority, COUNT(*) AS tickets FROM tickets WHERE status = 'open' GROUP BY priority ORDER BY priority",
        }],
    },
}  # fmt: skip
_TITLES = {
    "delta": "Delta (changes)", "redshift": "Redshift (stand-in)", "pgvector": "pgvector", "opensearch": "OpenSearch",
    "documentdb": "DocumentDB (stand-in)",
}  # fmt: skip
_EDIT = "UPDATE public.articles SET body = replace(body, %s, %s), updated_at = now() WHERE id = %s"
_DAYS = ("stores 21 days", "stores 34 days", "stores 55 days")
"""The article's text at first, after the one commit, and after the commit that the killed store misses."""
_ARRIVAL_SECONDS = 120.0
_REDSHIFT_SECONDS = 150.0
"""A minute between loads, a load's own time, and a first load of all rows."""
_CATCH_UP_SECONDS = 60.0


class StoresDemo(Demo):
    """The steps, in order; starting, seeding and capturing are inherited."""

    parts = (*DEFAULT_PARTS, "opensearch", "documentdb", "redshift")
    places = "Delta and three vector stores"

    def __init__(self, folder: Path) -> None:
        """Take the clone's folder; nothing is started."""
        super().__init__(folder, CONFIG)
        self._folder = folder

    def run(self) -> None:
        """Run all steps; raises DemoError or PipelineError where one fails."""
        self.start_parts()
        rows = self.seed()
        self.capture(rows)
        self.wait_loaded(sum(rows.values()))
        self.calibrate()
        commit = self.one_commit()
        try:
            self.ask_each_store(_DAYS[1])
            self.kill()
            self.go_on()
            self.bring_back()
            self.await_redshift(commit)
        finally:
            commit.stop()
        self.reconcile()
        self.cite_a_fact()
        self.converse()
        console.print(
            f"\nDone in {self.elapsed():.0f} s: one commit, five stores, and none of them differs from the lake."
        )

    def configure(self) -> None:
        """Add the other stores to the helpdesk's pipeline, and make the bucket through which Redshift is loaded."""
        client = self.stack.aws.client("s3")
        client.create_bucket(Bucket=_BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        pipeline = yaml.safe_load((self._folder / HELPDESK).read_text(encoding="utf-8"))
        (self._folder / CONFIG).write_text(yaml.safe_dump(pipeline | _STORES, sort_keys=False), encoding="utf-8")
        super().configure()

    def one_commit(self) -> Arrivals:
        """Commit an edit and print when each store shows it; `await_redshift` waits for Redshift."""
        self.step("One commit on its way to five stores")
        before = self.counters()["texts"]
        commit = self.commit(*_DAYS[:2], self._names(), lake=True)
        commit.wait(["delta", *self._names()], _ARRIVAL_SECONDS, self._print_arrival)
        texts = self.counters()["texts"] - before
        console.print(f"  {texts} text sent to the model for {len(self._names())} vector stores")
        console.print("  Redshift is loaded once a minute: a line below says when the commit is there")
        if texts != 1:
            raise DemoError(f"{texts} texts were sent to the model for an article of one chunk")
        return commit

    def commit(self, old: str, new: str, stores: list[str], *, lake: bool = False) -> Arrivals:
        """Commit an edit of the article, and begin to poll the places where it arrives."""
        places = {sink.name: _in_store(sink, new) for sink in self.config.sinks if sink.name in stores}
        if lake:
            warehouse = self.stack.endpoints()["redshift"]["dsn"]
            places |= {"delta": _in_delta(self.config, new), "redshift": _in_redshift(warehouse, old)}
        arrivals = Arrivals(places)
        with psycopg.connect(self.stack.endpoints()["postgres"]["dsn"], autocommit=True) as source:
            source.execute(_EDIT, (old, new, EDITED))
            arrivals.start()
        return arrivals

    def ask_each_store(self, wanted: str) -> None:
        """Ask each vector store the same question, and check that each answers with the committed text."""
        self.step("One question to each vector store")
        console.print(f"  {QUESTIONS[0]}", markup=False)
        for name in self._names():
            self._ask(name, wanted)

    def kill(self) -> None:
        """Kill one store, as a crash of its machine would."""
        self.step(f"{_TITLES[KILLED]} is killed (SIGKILL)")
        self.stack.service(KILLED).kill()
        try:
            commands.ask(self.config, QUESTIONS[0], store=KILLED)
        except PipelineError as error:
            console.print(f"  asked for an answer: {error.message}", markup=False)
        else:
            raise DemoError("a killed store answered")

    def go_on(self) -> None:
        """Commit an edit that only the other stores get."""
        self.step("The pipeline goes on without it")
        others = [name for name in self._names() if name != KILLED]
        arrivals = self.commit(*_DAYS[1:], others)
        arrivals.wait(others, _ARRIVAL_SECONDS, self._print_arrival)
        arrivals.stop()
        self._ask(others[0], _DAYS[2])

    def bring_back(self) -> None:
        """Restart it, and check that it catches up by itself and without the model."""
        self.step(f"{_TITLES[KILLED]} comes back")
        before, began = self.counters()["texts"], time.monotonic()
        self.stack.up([KILLED])
        console.print(f"  it answers again after {time.monotonic() - began:.1f} s")
        missed = Arrivals(
            {KILLED: _in_store(next(sink for sink in self.config.sinks if sink.name == KILLED), _DAYS[2])}
        )
        missed.start()
        missed.wait([KILLED], _CATCH_UP_SECONDS, self._print_arrival)
        if texts := self.counters()["texts"] - before:
            raise DemoError(f"{texts} texts were sent to the model to catch a store up")
        self._ask(KILLED, _DAYS[2])

    def await_redshift(self, commit: Arrivals) -> None:
        """Wait for the one commit in the warehouse."""
        self.step("The one commit in Redshift")
        commit.wait(["redshift"], _REDSHIFT_SECONDS, self._print_arrival)
        self._show(commit)

    def reconcile(self) -> None:
        """Compare every vector store with the lake by `ragstream reconcile`, and the warehouse with the source."""
        self.step("ragstream reconcile: every vector store against the lake")
        command = [sys.executable, "-m", "glue_jobs", "reconcile", str(CONFIG), "--json"]
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, check=False)
        if done.returncode not in {0, 1}:
            raise DemoError(f"reconcile ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        for name, result in json.loads(done.stdout)["stores"].items():
            drift = ", ".join(f"{number} {kind}" for kind, number in result["drift"].items())
            console.print(f"  {_TITLES[name]:<22} {result['rows']} rows, {drift}, {result['seconds']:.1f} s")
        if done.returncode:
            raise DemoError("a store differs from the lake")
        self._compare_redshift()

    def keep(self) -> None:
        """Print commands to try next."""
        super().keep()
        console.print(
            "With several stores:\n"
            f"  .venv/bin/ragstream ask {CONFIG} --store {KILLED} 'How loud is the siren S-90?'\n"
            f"  .venv/bin/ragstream reconcile {CONFIG}\n"
            '  psql "$(jq -r .redshift.dsn .ragstream/stack.json)"     # the warehouse: desk.articles, desk.tickets'
        )

    def _compare_redshift(self) -> None:
        """Wait for the load of the last commit, and compare all rows with the source's."""
        endpoints, until = self.stack.endpoints(), time.monotonic() + _REDSHIFT_SECONDS
        for table, columns in {"articles": "id, title, body, status", "tickets": "id, subject, body, status"}.items():
            rows = []
            for dsn, schema in ((endpoints["postgres"]["dsn"], "public"), (endpoints["redshift"]["dsn"], "desk")):
                query = f"SELECT {columns} FROM {schema}.{table} ORDER BY id".encode()  # noqa: S608
                with psycopg.connect(dsn, autocommit=True) as connection:
                    rows.append(connection.execute(query).fetchall())
                    while schema == "desk" and rows[0] != rows[1] and time.monotonic() < until:
                        time.sleep(1.0)
                        rows[1] = connection.execute(query).fetchall()
            if rows[0] != rows[1]:
                raise DemoError(f"the rows of {table} in Redshift are not the source's")
            console.print(f"  {_TITLES['redshift']:<22} {len(rows[1])} {table}, as PostgreSQL has them")

    def cite_a_fact(self) -> None:
        """Give a login the right to read the warehouse and nothing else, and ask for what is counted there."""
        self.step("A fact of the warehouse in an answer")
        endpoints = self.stack.endpoints()
        with psycopg.connect(endpoints["redshift"]["dsn"], autocommit=True) as warehouse:
            warehouse.execute(f"CREATE USER {_FACTS_LOGIN} PASSWORD '{_FACTS_LOGIN}'")
            warehouse.execute(f"GRANT USAGE ON SCHEMA desk TO {_FACTS_LOGIN}")
            warehouse.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA desk TO {_FACTS_LOGIN}")
        with psycopg.connect(endpoints["postgres"]["dsn"]) as source:
            query = "SELECT priority, COUNT(*) FROM public.tickets WHERE status = 'open' GROUP BY priority ORDER BY priority"
            counts = [list(row) for row in source.execute(query)]
        answer = commands.ask(self.config, "How many tickets are open?")
        console.print(f"  {answer['answer']}", markup=False)
        if [fact["rows"] for fact in answer["facts"]] != [counts]:
            raise DemoError("the fact in the answer is not what PostgreSQL counts")

    def _ask(self, store: str, wanted: str) -> None:
        answer = commands.ask(self.config, QUESTIONS[0], store=store)
        cited = ", ".join(f"{c['table'].removeprefix('public.')} {c['key']['id']}" for c in answer["citations"])
        console.print(f"  {_TITLES[store]:<22} {answer['answer']} [{cited}]", markup=False)
        if wanted.removeprefix("stores ") not in answer["answer"]:
            raise DemoError(f"{store} does not answer with what was committed")

    def _show(self, commit: Arrivals) -> None:
        table = Table("one commit", "there after", box=None)
        table.columns[1].justify = "right"
        for name, ms in sorted(commit.ms.items(), key=lambda arrival: arrival[1]):
            table.add_row(_TITLES[name], f"{ms:,.0f} ms")
        console.print(table)

    def _print_arrival(self, name: str, ms: float) -> None:
        console.print(f"  {_TITLES[name]:<22} after {ms:8,.0f} ms")

    def _names(self) -> list[str]:
        return [sink.name for sink in self.config.sinks]


def _in_store(config: SinkConfig, text: str) -> Place:
    """A vector store, where a reader finds the article with this text."""
    reader, name = open_reader(config), row_id(_ARTICLES, EDITED)

    def shows() -> bool:
        document = reader.seen([name]).get(name)
        return document is not None and text in document.text

    return Place(shows, 0.02, reader.close)


def _in_delta(config: PipelineConfig, text: str) -> Place:
    """The lake, where the current rows have this text."""
    layout, table = (
        LakeLayout(config.lake.path),
        next(candidate for candidate in config.tables if candidate.table == _ARTICLES),
    )
    contexts = {source.name: decode_context(config, source.name) for source in config.sources}
    return Place(
        lambda: any(row["id"] == EDITED and text in row["body"] for row in current_rows(layout, table, contexts)), 0.25
    )


def _in_redshift(dsn: str, old: str) -> Place:
    """The warehouse, where the old text is gone: one load may bring the next edit as well."""
    connection = psycopg.connect(dsn, autocommit=True)

    def shows() -> bool:
        with contextlib.suppress(psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            query = "SELECT 1 FROM desk.articles WHERE id = %s AND position(%s IN body) = 0"
            return connection.execute(query, (EDITED, old)).fetchone() is not None
        return False

    return Place(shows, 0.5, connection.close)
