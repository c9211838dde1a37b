"""The demo's story: rows committed in a real PostgreSQL become cited answers, and the answers change because rows change.

Articles travel through Debezium and Kafka, tickets through DMS-shaped Kinesis; the lake and pgvector are fed by
`ragstream run` in a process of its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

from evaluation.evaluate import evaluate
from evaluation.golden import read_golden
from glue_jobs.config.pipeline import PipelineConfig, load_config
from local_stack.demo import helpdesk
from local_stack.demo.pipeline import CONFIG, DemoPipeline
from local_stack.demo.store_readers import open_reader
from local_stack.servers.connect import request_json
from local_stack.service import ServiceStatus
from local_stack.stack import DEFAULT_PARTS, Stack
from memory import open_store
from retrieval import commands
from retrieval.access import Scope
from retrieval.conversation.turns import Session
from schemas.caller import Caller
from schemas.errors import PipelineError

QUESTIONS = (
    "How many days of readings does an H2 hub store while it is offline?",
    "How far does the radio reach inside a glasshouse with crops?",
    "How loud is the siren S-90?",
)
GOLDEN = Path(helpdesk.__file__).parent / "questions.jsonl"
CONVERSATION = ("How long is the warranty of a Moss probe?", "And of the Skua mast?")
EDITED, DELETED, TICKET = 3, 21, 1001
"""The article that is edited, the one that is deleted (it answers the third question), the ticket whose status changes."""
_EDIT = """UPDATE public.articles SET body = replace(body, 'stores 21 days', 'stores 34 days'), updated_at = now()
           WHERE id = %s"""
_EDIT_SHOWS = """SELECT 1 FROM helpdesk WHERE table_name = 'public.articles' AND key->>'id' = %s
                 AND chunk_text LIKE '%%34 days%%'"""
_DELETE_SHOWS = """SELECT 1 WHERE NOT EXISTS (
    SELECT FROM helpdesk WHERE table_name = 'public.articles' AND key->>'id' = %s)"""
_REOPEN = "UPDATE public.tickets SET status = 'reopened', updated_at = now() WHERE id = %s"
_REOPEN_SHOWS = """SELECT 1 FROM helpdesk WHERE table_name = 'public.tickets' AND key->>'id' = %s
                   AND metadata->>'status' = 'reopened'"""
_SEARCHABLE_SECONDS = 120.0
_LOAD_SECONDS = 240.0

console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())


class DemoError(Exception):
    """A step failed; the message says which."""


class Demo:
    """The steps, in order."""

    parts: Sequence[str] = DEFAULT_PARTS
    places = "Delta and pgvector"

    def __init__(self, folder: Path, config: Path = CONFIG) -> None:
        """Take the clone's folder; nothing is started."""
        self.stack = Stack(folder / ".ragstream")
        self.pipeline = DemoPipeline(folder, self.stack, config)
        self.began = time.monotonic()

    def run(self) -> None:
        """Run all steps; raises DemoError or PipelineError where one fails."""
        self.start_parts()
        rows = self.seed()
        self.capture(rows)
        self.wait_loaded(sum(rows.values()))
        self.calibrate()
        self.ask_all("Three questions")
        self.converse()
        self.change()
        self.ask_all("The same questions again")
        self.check_answers()

    def start_parts(self) -> None:
        """Start the servers side by side, from a clean state."""
        self.step("Starting the parts: real servers, as child processes")
        self.stack.remove()
        self.stack.up(self.parts, progress=_print_part)
        self.configure()

    def configure(self) -> None:
        """Read the pipeline's configuration, whose references resolve now that the stack is up."""
        self.config: PipelineConfig = load_config(str(self.pipeline.config))

    def seed(self) -> dict[str, int]:
        """Commit the helpdesk's rows at the source, and start the pipeline meanwhile."""
        self.step("Committing the helpdesk's rows in PostgreSQL")
        self.pipeline.create_streams()
        rows = helpdesk.seed(self.stack.endpoints()["postgres"]["dsn"])
        self.pipeline.start()
        console.print(
            f"  {rows['articles']} articles, {rows['tickets']} tickets; the pipeline starts: {self.pipeline.log}"
        )
        return rows

    def capture(self, rows: dict[str, int]) -> None:
        """Create the connector, and start the DMS task."""
        self.step("Capturing: articles by Debezium → Kafka, tickets by DMS → Kinesis")
        self.pipeline.apply_capture()
        self.pipeline.start_dms()
        console.print(f"  the connector runs, the DMS task loads {rows['tickets']} rows and follows the log")

    def wait_loaded(self, total: int) -> None:
        """Wait until all rows are searchable, and show the progress."""
        self.step(f"From the streams into {self.places}")
        shown, until = -1, time.monotonic() + _LOAD_SECONDS
        while (searchable := self.documents()) < total:
            self.pipeline.raise_if_ended()
            if time.monotonic() > until:
                raise DemoError(
                    f"only {searchable} of {total} documents are searchable; the pipeline's log is {self.pipeline.log}"
                )
            if searchable != shown:
                console.print(
                    f"  {searchable:>4} of {total} documents searchable, {self.elapsed():.0f} s since the start"
                )
                shown = searchable
            time.sleep(1.0)
        counters = self.counters()
        console.print(
            f"  {total} of {total} documents searchable; {counters['texts']} texts embedded in {counters['requests']} requests"
        )
        # The index knows its lag once the first batch of each source is committed.
        while commands.ask(self.config, QUESTIONS[0])["freshness"]["lag_seconds"] is None and time.monotonic() < until:
            self.pipeline.raise_if_ended()
            time.sleep(0.5)

    def calibrate(self) -> None:
        """Measure on labelled questions from which similarity on rows answer: before, no question is answered."""
        self.step("Measuring the model: when is a row an answer?")
        report = evaluate(self.config, read_golden(str(GOLDEN)), None, lambda _: None, keep=True, with_answers=False)
        ways, held_out = report["search"]["all"]["ways"], report["calibration"]["held_out"]
        recall = ", ".join(f"{way} {ways[way]['R@5']['mean']:.2f}" for way in ("dense", "lexical", "hybrid"))
        kept, refused = held_out["answerable_kept"], held_out["misses_refused"]
        console.print(
            f"  {report['questions']} labelled questions: recall@5 {recall}; of questions held out, {kept:.0%} of those with an "
            f"answer are kept, and {refused:.0%} of the others refused"
        )

    def ask_all(self, title: str) -> None:
        """Ask the three questions, and show the answers with their citations."""
        self.step(title)
        self.responses: list[dict[str, Any]] = []
        table = Table(show_lines=True, expand=False)
        for heading in ("Question", "Answer", "Cites"):
            table.add_column(heading, overflow="fold")
        for question in QUESTIONS:
            answer = commands.ask(self.config, question)
            self.responses.append(answer)
            cited = ", ".join(f"{c['table'].removeprefix('public.')} {c['key']['id']}" for c in answer["citations"])
            table.add_row(question, answer["answer"], cited or "nothing")
        console.print(table if sys.stdout.isatty() else _plain(QUESTIONS, self.responses))
        lag = self.responses[-1]["freshness"]["lag_seconds"]
        behind = "has not heard from every source yet" if lag is None else f"is {lag:.1f} s behind its sources"
        console.print(f"  answered by: {self.responses[-1]['answerer']}; the index {behind}")

    def converse(self) -> None:
        """Ask a second question that makes sense only after the first one of its session."""
        self.step("A conversation, kept in DynamoDB: the second question makes sense only after the first")
        self.create_memory()
        asking = Scope(caller=Caller({"sub": "ada"}))
        for question in CONVERSATION:
            answer = commands.ask(self.config, question, Session("demo"), scope=asking)
            searched = answer["standalone_question"]
            console.print(
                f"  Q: {question}" + (f"\n     searched as: {searched}" if searched != question else ""), markup=False
            )
            console.print(f"  A: {answer['answer']}", markup=False)
        if "Skua mast for four" not in answer["answer"]:
            raise DemoError("the second question was not understood from the first")

    def create_memory(self) -> None:
        """Create the memory's table, as `ragstream check` does."""
        if self.config.memory is None:
            raise DemoError("the demo's configuration has no `memory`")
        with closing(open_store(self.config.memory)) as store:
            store.check()

    def change(self) -> None:
        """Commit an edit, a delete and a status change; measure each from its commit to the store."""
        self.step("Three commits, timed until a reader of the store sees them")
        ms = self.timed(_EDIT, EDITED, _EDIT_SHOWS)
        console.print(f"  article {EDITED} edited     searchable after {ms:5.0f} ms")
        ms = self.timed("DELETE FROM public.articles WHERE id = %s", DELETED, _DELETE_SHOWS)
        console.print(f"  article {DELETED} deleted    gone after       {ms:5.0f} ms")
        before = self.counters()["texts"]
        ms = self.timed(_REOPEN, TICKET, _REOPEN_SHOWS)
        calls = self.counters()["texts"] - before
        console.print(f"  ticket {TICKET} reopened  searchable after {ms:5.0f} ms, {calls} texts sent to the model")
        if calls:
            raise DemoError("a status change called the model")

    def timed(self, statement: str, number: int, query: str) -> float:
        """Commit a statement, and poll the store until its effect is visible; returns milliseconds."""
        endpoints = self.stack.endpoints()
        with (
            psycopg.connect(endpoints["postgres"]["dsn"], autocommit=True) as source,
            psycopg.connect(endpoints["vectors"]["dsn"], autocommit=True) as store,
        ):
            source.execute(statement.encode(), (number,))
            committed = time.perf_counter()
            while store.execute(query.encode(), (str(number),)).fetchone() is None:
                self.pipeline.raise_if_ended()
                if time.perf_counter() - committed > _SEARCHABLE_SECONDS:
                    raise DemoError(
                        f"a commit was not searchable after {_SEARCHABLE_SECONDS:.0f} s: {self.pipeline.log}"
                    )
                time.sleep(0.005)
            return (time.perf_counter() - committed) * 1000

    def check_answers(self) -> None:
        """Check that the answers have changed, and that the deleted article is not cited."""
        if "34 days" not in self.responses[0]["answer"]:
            raise DemoError("the answer to the first question did not change with its article")
        cited = {(c["table"], c["key"]["id"]) for answer in self.responses for c in answer["citations"]}
        if ("public.articles", DELETED) in cited:
            raise DemoError(f"article {DELETED} is deleted and still cited")
        console.print(f"\nDone in {self.elapsed():.0f} s: the answers changed because rows changed.")

    def documents(self) -> int:
        """The number of documents that readers find in every store."""
        counts = []
        for sink in self.config.sinks:
            with closing(open_reader(sink)) as reader:
                counts.append(reader.count())
        return min(counts)

    def counters(self) -> dict[str, int]:
        """The model endpoint's counters."""
        _, counters = request_json(self.stack.endpoints()["model"]["endpoint_url"], "GET", "/counters", timeout=10)
        return dict(counters)

    def elapsed(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self.began

    def step(self, title: str) -> None:
        """Name the next step."""
        console.print(f"\n[bold]{title}[/bold]" if console.is_terminal else f"\n{title}")

    def keep(self) -> None:
        """Start the service, and print the page's address and commands to try next."""
        try:
            page = f"\nThe page: {self.pipeline.serve()}"
        except PipelineError as error:
            page = f"\nThe page is not served: {error}"
        console.print(
            f"{page}\n"
            f"  Ask it: {QUESTIONS[0]}\n"
            f"  Then edit article {EDITED}, and the answer on the page marks itself stale:\n"
            f"  .venv/bin/python -m local_stack.demo.edit {EDITED} '34 days' '55 days'\n"
            "\nEverything keeps running. Try:\n"
            f"  .venv/bin/ragstream ask {self.pipeline.config} 'Which port must be open in the firewall for a hub?'\n"
            f"  .venv/bin/ragstream ask {self.pipeline.config} 'And of a Sluice valve?' --session demo --user ada\n"
            f"  .venv/bin/ragstream sessions {self.pipeline.config} demo --user ada\n"
            f"  .venv/bin/ragstream search {self.pipeline.config} 'purple ring'\n"
            f"  .venv/bin/ragstream status {self.pipeline.config}\n"
            f"  .venv/bin/ragstream table {self.pipeline.config} public.tickets\n"
            '  psql "$(jq -r .postgres.dsn .ragstream/stack.json)"      # change a row, and ask again\n'
            "  .venv/bin/ragstream stack down                          # ends all of it"
        )  # fmt: skip


def _print_part(status: ServiceStatus, seconds: float) -> None:
    console.print(f"  {status.name:<10} ready after {seconds:4.1f} s")


def _plain(questions: tuple[str, ...], responses: list[dict[str, Any]]) -> str:
    lines = []
    for question, answer in zip(questions, responses, strict=True):
        cited = ", ".join(f"{c['table']} {c['key']['id']}" for c in answer["citations"]) or "nothing"
        lines.append(f"  Q: {question}\n  A: {answer['answer']}\n  cites: {cited}")
    return "\n".join(lines)
