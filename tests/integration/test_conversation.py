"""Conversations through the commands: follow-ups of a real helpdesk, what others may see, what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from embeddings.onnx.embedder import LocalEmbedder
from glue_jobs.cli.main import main
from glue_jobs.config.pipeline import PipelineConfig, parse_config
from glue_jobs.config.values import Substitution
from glue_jobs.operations import checks
from local_stack.demo.helpdesk import follow_ups, rows
from local_stack.models.service import ModelService
from local_stack.servers.memorydb import MemoryDB
from local_stack.servers.postgres import VectorStore
from retrieval import commands
from retrieval.access import Access, Scope
from retrieval.answering.ask import Assistant
from retrieval.answering.extractive import ExtractiveAnswerer
from retrieval.conversation.turns import Conversation, ExtractiveRewriter, Session
from schemas.caller import Caller
from schemas.errors import ConfigurationError, UnavailableError
from sinks import open_sink
from tests.endpoint import Endpoint
from tests.helpdesk import LOCAL, put
from tests.servers import new_database, unique
from tests.waiting import eventually

ADA, BOB = Scope(caller=Caller({"sub": "ada"})), Scope(caller=Caller({"sub": "bob"}))
FIRST, SECOND = "How long is the warranty of a Moss probe?", "And of the Skua mast?"


@pytest.fixture(scope="module")
def document(
    vectors: VectorStore, memorydb: MemoryDB, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """A configuration whose store has the helpdesk's articles."""
    folder = tmp_path_factory.mktemp("conversation")
    for dsn in new_database(vectors):
        articles = {"table": "public.articles", "keys": ["id"], "document": {"template": "{title}\n\n{body}"}}
        settings = {
            "name": "talks",
            "source": {"type": "files", "format": "kafka", "envelope": "debezium", "path": [str(folder / "none.jsonl")]},
            "tables": [articles], "lake": {"path": str(folder / "lake")}, "checkpoint": str(folder / "checkpoint"),
            "embedding": json.loads(LOCAL.model_dump_json()),
            "sinks": [{"type": "pgvector", "dsn": dsn, "table": "helpdesk"}],
            "memory": {
                "type": "memorydb", "prefix": unique("talks"), "turn_timeout": "2s", "busy_timeout": "20s",
                "profile": {"plan": {"type": "text"}, "hubs": {"type": "integer"}}, **memorydb.endpoint,
            },
        }  # fmt: skip
        config, embedder = loaded(settings), LocalEmbedder(LOCAL)
        with closing(open_sink(config.sinks[0], embedder.fingerprint, embedder.dimensions)) as sink:
            sink.prepare()
            put(sink, embedder, "public.articles", rows("articles"))
        yield settings


def loaded(document: dict[str, Any]) -> PipelineConfig:
    return parse_config(json.dumps(document), "talks.json", Substitution({}, Path("nowhere")))


@pytest.fixture
def ragstream(document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run a command; returns its status and output."""

    def run(command: str, *arguments: str, **changes: Any) -> tuple[int, str]:
        file = tmp_path / "talks.json"
        file.write_text(json.dumps(document | changes))
        with pytest.raises(SystemExit) as ended:
            main([command, str(file), *arguments])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out + printed.err

    return run


def test_follow_ups_are_answered_as_questions_of_their_own(document: dict[str, Any]) -> None:
    config, counts = loaded(document), {"follow-ups": [0, 0], "others": [0, 0]}
    with commands.opened(config, None) as index, commands.remembering(config) as memory:
        searcher = index.searcher()
        assistant = Assistant(searcher, ExtractiveAnswerer(searcher.index, searcher.embedder, index.model, 2), Access())
        ask = cache(assistant.ask)

        class Cached:
            answer, are_live = staticmethod(ask), staticmethod(lambda _: True)

        conversation = Conversation(memory.conversations, memory.profiles, ExtractiveRewriter())
        for number, follow_up in enumerate(follow_ups()[::3]):
            session = Session(f"labelled {number}")
            conversation.ask(follow_up.first, session, ADA.caller, Cached())
            second = conversation.ask(follow_up.then, session, ADA.caller, Cached())["answer"]
            count = counts["others" if follow_up.kind == "independent" else "follow-ups"]
            for at, text in enumerate((second, ask(follow_up.then).text)):
                count[at] += any(phrase.lower() in text.lower() for phrase in follow_up.answer_contains)
    assert counts["follow-ups"][0] >= 10, counts  # of 12
    assert counts["follow-ups"][1] <= 7, counts
    assert counts["others"][0] >= counts["others"][1] - 1, counts  # of 4


def test_a_second_question_makes_sense_only_after_the_first(ragstream: Callable[..., Any]) -> None:
    asking = ("--session", "talk", "--user", "ada", "--json")
    assert json.loads(ragstream("ask", FIRST, *asking)[1])["turn"] == 1
    status, out = ragstream("ask", SECOND, *asking, "--turn-id", "mine")
    second = json.loads(out)
    assert (status, second["session"], second["turn"], second["turn_id"]) == (0, "talk", 2, "mine")
    assert "Skua mast for four" in second["answer"]
    assert second["standalone_question"].endswith(f"Moss probe {SECOND}")
    assert ragstream("ask", SECOND, *asking, "--turn-id", "mine") == (0, out)
    assert "Skua mast for four" not in json.loads(ragstream("ask", SECOND, "--json")[1])["answer"]
    status, out = ragstream("sessions", "talk", "--user", "ada", "--json")
    assert [(exchange["turn"], exchange["question"], exchange["state"]) for exchange in map(json.loads, out.splitlines())] == [
        (1, FIRST, "answered"), (2, SECOND, "answered"),
    ]  # fmt: skip
    assert "2 turns  talk" in ragstream("sessions", "--user", "ada")[1]


def test_what_is_refused_is_said_with_status_2(ragstream: Callable[..., Any], memorydb: MemoryDB) -> None:
    ragstream("ask", FIRST, "--session", "mine", "--user", "ada")
    for arguments, said in (
        (("ask", SECOND, "--session", "mine", "--user", "bob"), "it belongs to another user"),
        (("ask", SECOND, "--session", "mine"), "it belongs to another user"),
        (("sessions", "mine", "--user", "bob"), "it belongs to another user"),
        (("sessions", "none", "--user", "ada"), "there is no session of that name"),
        (("ask", "mega" * 30_000, "--session", "mine", "--user", "ada"), "bytes"),
        (("ask", SECOND, "--session", "a\nb", "--user", "ada"), "the session is no usable name"),
        (("profile", "--user", "ada", "hubs=many"), "hubs is a whole number"),
        (("ask", SECOND, "--turn-id", "x"), "--turn-id names a turn of a --session"),
    ):
        status, out = ragstream(*arguments)
        assert (status, said in out, "megamega" in out) == (2, True, False), (arguments[0], out)
    status, out = ragstream("ask", SECOND, "--session", "mine", memory=None)
    assert (status, "keeps no memory" in out) == (2, True)
    memorydb.stop()
    try:
        status, out = ragstream("ask", "secret question", "--session", "mine", "--user", "ada")
    finally:
        memorydb.start()
    assert (status, "MemoryDB does not answer" in out, "secret" in out) == (2, True, False)


def test_a_question_whose_command_was_killed_can_be_repeated(
    document: dict[str, Any], instant_model: ModelService, tmp_path: Path
) -> None:
    model, file = Endpoint(instant_model), tmp_path / "talks.json"
    generation = {"type": "bedrock", "model": "amazon.nova-lite-v1:0", **instant_model.endpoint}
    file.write_text(json.dumps(document | {"generation": generation}))
    asking = ["ask", str(file), FIRST, "--session", "killed", "--user", "ada", "--turn-id", "mine", "--json"]
    model.faults(slow_ms=60_000)
    config = loaded(document)

    def exchanges() -> Any:
        with commands.remembering(config) as memory:
            try:
                return memory.conversations.exchanges("ada", "killed")
            except ConfigurationError:
                return []

    try:
        with subprocess.Popen(
            [sys.executable, "-m", "glue_jobs", *asking], env=os.environ | {"PYTHONPATH": str(Path.cwd())}
        ) as process:
            eventually(exchanges)
            (claimed,) = exchanges()
            process.send_signal(signal.SIGKILL)
    finally:
        model.reset()
    assert (claimed.question, claimed.reply, claimed.in_progress) == (FIRST, None, True)
    repeated = commands.ask(config, FIRST, Session("killed", "mine"), scope=ADA)
    assert (repeated["turn"], "three years" in repeated["answer"]) == (1, True)
    assert [exchange.reply["answer"] for exchange in exchanges()] == [repeated["answer"]]


def test_forget_gives_a_receipt_and_confirms_it(ragstream: Callable[..., Any], document: dict[str, Any]) -> None:
    for session in ("one", "two"):
        ragstream("ask", FIRST, "--session", session, "--user", "carol")
    assert ragstream("profile", "--user", "carol", "plan=Grower", "hubs=3")[1] == "version 1\nplan: Grower\nhubs: 3\n"
    assert json.loads(ragstream("profile", "--user", "carol", "plan=", "--json")[1]) == {
        "version": 2,
        "profile": {"hubs": 3},
    }
    assert "profile: it is not of version 1" in ragstream("profile", "--user", "carol", "hubs=4", "--version", "1")[1]
    nothing = {"profile": 0, "sessions": 0, "messages": 0, "feedback": 0}
    with commands.remembering(loaded(document)) as memory:
        memory.feedback.put("carol", "one", 1, "down", "too long")
    assert "   down: too long" in ragstream("sessions", "one", "--user", "carol")[1]
    first, second = (json.loads(ragstream("forget", "--user", "carol")[1]) for _ in range(2))
    assert (first["user"], first["removed"], first["left"]) == (
        "carol", {"profile": 1, "sessions": 2, "messages": 4, "feedback": 1}, nothing,
    )  # fmt: skip
    assert (second["removed"], second["left"]) == (nothing, nothing)
    assert "no conversation is kept" in ragstream("sessions", "--user", "carol")[1]


def test_forget_says_by_its_status_that_something_is_left(
    ragstream: Callable[..., Any], document: dict[str, Any]
) -> None:
    ended = Event()

    def asking() -> None:
        with commands.remembering(loaded(document)) as memory:
            for number in range(100_000):
                with suppress(UnavailableError), memory.conversations.turn("dora", f"s{number % 20}", "question"):
                    if ended.is_set():
                        return

    with ThreadPoolExecutor(1) as pool:
        going_on = pool.submit(asking)
        eventually(lambda: json.loads(ragstream("forget", "--user", "dora")[1])["removed"]["messages"])
        outcomes = [ragstream("forget", "--user", "dora") for _ in range(20)]
        ended.set()
        going_on.result()
    left = [(status, sum(json.loads(out)["left"].values()) > 0) for status, out in outcomes]
    assert (1, True) in left
    assert set(left) <= {(1, True), (0, False)}
    assert ragstream("forget", "--user", "dora")[0] == 0


def test_check_names_the_memory(document: dict[str, Any]) -> None:
    assert checks.run({"memory": checks.parts(loaded(document))["memory"]}) == {"memory": None}
