"""Answers with facts: a text model's over the endpoint's wire format, many callers at once, and a warehouse that fails."""

from __future__ import annotations

import itertools
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from pydantic import TypeAdapter

from generation import BedrockGenerationConfig, SageMakerGenerationConfig, TextModelConfig, open_generator
from retrieval import EXTRACTIVE, commands
from retrieval.access import Scope
from retrieval.facts.notes import check_tools
from schemas.caller import Caller
from schemas.errors import ConfigurationError
from service.assistant import AssistantService
from sinks.pgvector.config import PgvectorConfig
from tests.asking import Pipeline
from tests.desk_facts import ALL, HOURS, SHOWN, SINCE, SLOW, TICKETS, facts_of, indexed_tickets
from tests.endpoint import Endpoint
from tests.helpdesk import LOCAL
from warehouse.config import RedshiftConfig

PRINTER = "How many hours were spent for the customer whose printer in the lobby jams on thick paper?"
SINCE_DAY = "How many tickets were opened since 2026-11-12?"
MODELS: dict[str, dict[str, Any]] = {
    "bedrock": {"type": "bedrock", "model": "amazon.nova-lite-v1:0"},
    "tgi": {"type": "sagemaker", "endpoint": "tgi-1", "model": "m"},
    "lmi": {"type": "sagemaker", "endpoint": "lmi-1", "model": "m"},
}
type Asked = Callable[..., dict[str, Any]]


@pytest.fixture
def store(vectors_dsn: str) -> PgvectorConfig:
    return indexed_tickets(vectors_dsn)


@pytest.fixture
def pipeline(
    store: PgvectorConfig, ticket_warehouse: RedshiftConfig, facts_login: dict[str, str], endpoint: Endpoint
) -> Callable[..., Pipeline]:
    """A pipeline with these facts and this text model."""

    def made(*facts: dict[str, Any], model: str | None = "bedrock", **changes: Any) -> Pipeline:
        adapter: TypeAdapter[TextModelConfig] = TypeAdapter(TextModelConfig)
        settings = {"endpoint_url": endpoint.url, "timeout_seconds": 20}
        generation = EXTRACTIVE if model is None else adapter.validate_python(MODELS[model] | settings)
        warehouse, known = ticket_warehouse, facts_of(facts_login, *facts)
        plain = Pipeline(LOCAL, (store,), generation, tables=(TICKETS,), warehouse=warehouse, facts=known)
        return replace(plain, **changes)

    return made


@pytest.mark.parametrize("model", MODELS)
def test_a_text_model_cites_facts_beside_rows_and_their_time(
    pipeline: Callable[..., Pipeline], endpoint: Endpoint, model: str
) -> None:
    endpoint.faults(
        answer="The printer jams on thick paper [1]. 6.75 hours were spent [F1]. It took 8 hours [F1]. Ask Bob [F1]."
    )
    answer = commands.ask(pipeline(HOURS, model=model), PRINTER)
    assert answer["answer"] == (
        f"The printer jams on thick paper [1]. 6.75 hours were spent [F1]. (F1 loaded {SHOWN}.)"
    )
    assert [(sentence["citations"], sentence["facts"]) for sentence in answer["sentences"]] == [([1], []), ([], [1])]
    (fact,) = answer["facts"]
    assert (fact["fact"], fact["rows"], fact["loaded_at"]) == ("hours", [["6.75"]], SHOWN)


@pytest.mark.parametrize("model", MODELS)
def test_a_text_model_asks_for_a_fact_with_values_of_the_question(
    pipeline: Callable[..., Pipeline], endpoint: Endpoint, model: str
) -> None:
    endpoint.faults(answer="Since 2026-11-12 there were 2 tickets [F1].")
    answer = commands.ask(pipeline(SINCE, model=model), SINCE_DAY)
    assert answer["answer"] == f"Since 2026-11-12 there were 2 tickets [F1]. (F1 loaded {SHOWN}.)"
    (fact,) = answer["facts"]
    assert (fact["rows"], fact["parameters"]) == ([[2]], {"since": "2026-11-12"})
    assert endpoint.counters()["generations"] == 2


@pytest.mark.parametrize("model", MODELS)
def test_a_listener_hears_of_a_fact_before_the_sentence_that_cites_it(
    pipeline: Callable[..., Pipeline], endpoint: Endpoint, model: str
) -> None:
    endpoint.faults(answer="Since 2026-11-12 there were 2 tickets [F1]. Others say 3 [F1].")
    heard: list[tuple[str, dict[str, Any]]] = []
    with AssistantService(pipeline(SINCE, model=model)) as service:
        answer = service.ask(SINCE_DAY, on_event=lambda event: heard.append((event.name, event.as_json())))
    assert [name for name, _ in heard] == ["started", "fact", "sentence", "answer"]
    payloads = dict(heard)
    assert payloads["fact"] == {"number": 1, **answer["facts"][0]}
    assert [payloads["sentence"]] == answer["sentences"]
    assert payloads["sentence"]["facts"] == [1]


@pytest.mark.parametrize(
    ("model", "name", "tool_input"),
    [
        ("bedrock", None, '{"since": "2026-11-12", "customer_id": "o\'brien"}'),
        ("lmi", None, '{"since": "2026-11-12", "_access0": "o\'brien"}'),
        ("bedrock", None, "{\"since\": \"2026-11-12' OR ''='\"}"),
        ("tgi", None, '{"since": "1999-01-01"}'),
        ("lmi", None, "SELECT * FROM tickets"),
        ("bedrock", "tickets", "{}"),
        ("lmi", "run_sql", '{"sql": "SELECT 1"}'),
    ],
)
def test_what_a_model_may_not_give_reads_nothing(
    pipeline: Callable[..., Pipeline],
    endpoint: Endpoint,
    caplog: pytest.LogCaptureFixture,
    model: str,
    name: str | None,
    tool_input: str,
) -> None:
    endpoint.faults(tool_inputs=[tool_input, tool_input], tool_name=name, answer="There are 2 tickets [F1].")
    ruled = pipeline(SINCE, model=model, access={"customer_id": "${claim:customer}"})
    with caplog.at_level(logging.WARNING):
        answer = commands.ask(ruled, SINCE_DAY, scope=Scope(caller=Caller({"customer": "acme"})))
    assert (answer["facts"], answer["sentences"], endpoint.counters()["generations"]) == ([], [], 3)
    logged = [r.__dict__["context"] for r in caplog.records if r.getMessage() == "fact is left out"]
    assert [context["fact"] for context in logged] == ["opened_since" if name is None else "none that was offered"]
    assert "brien" not in caplog.text + str(logged)


@pytest.mark.parametrize("model", MODELS)
def test_a_model_that_takes_no_tools_answers_without_them(
    pipeline: Callable[..., Pipeline], endpoint: Endpoint, model: str
) -> None:
    endpoint.faults(refuse_tools=True, answer="There are 6 tickets [F1].")
    asking = pipeline(SINCE, ALL, model=model)
    assert commands.ask(asking, SINCE_DAY)["answer"] == f"There are 6 tickets [F1]. (F1 loaded {SHOWN}.)"
    assert isinstance(asking.generation, BedrockGenerationConfig | SageMakerGenerationConfig)
    assert asking.facts is not None
    generator = open_generator(asking.generation)
    with pytest.raises(ConfigurationError, match="takes no tools"):
        check_tools(generator, asking.facts)
    endpoint.faults()
    check_tools(generator, asking.facts)


def test_a_model_reads_with_a_tool_what_its_caller_may_see(
    pipeline: Callable[..., Pipeline], endpoint: Endpoint
) -> None:
    counts = []
    for claim in ("acme", "o'brien", "nobody", ("acme", "o'brien"), None):
        endpoint.faults(answer="There are tickets [F1].")
        ruled = pipeline(SINCE, access={"customer_id": "${claim:customer}"})
        answer = commands.ask(
            ruled, SINCE_DAY, scope=Scope(caller=Caller({} if claim is None else {"customer": claim}))
        )
        counts.append([fact["rows"] for fact in answer["facts"]])
    assert counts == [[[[1]]], [[[1]]], [[[0]]], [[[2]]], []]


OWN = {
    "name": "own",
    "description": "how many tickets there are",
    "sql": "SELECT customer_id, COUNT(*) AS tickets FROM tickets GROUP BY customer_id",
}
OWN_SINCE = {
    "name": "own_since",
    "description": "how many tickets were opened since a day",
    "sql": "SELECT customer_id, COUNT(*) AS tickets FROM tickets WHERE day >= :since GROUP BY customer_id",
    "parameters": SINCE["parameters"],
}


@pytest.fixture
def moving(warehouse_dsn: str, ticket_warehouse: RedshiftConfig) -> Iterator[Counter[str]]:  # noqa: ARG001 - it has the table
    """Rows that change between two tenants without a pause."""
    stop, moves, seed = threading.Event(), Counter[str](), random.Random(7)

    def move() -> None:
        with psycopg.connect(warehouse_dsn, autocommit=True) as connection:
            while not stop.is_set():
                tenant, number = seed.choice(["acme", "o'brien"]), seed.randrange(2, 6)
                connection.execute("UPDATE desk.tickets__rows SET customer_id = %s WHERE id = %s", [tenant, number])
                moves["moved"] += 1

    mover = threading.Thread(target=move)
    mover.start()
    yield moves
    stop.set()
    mover.join()


def test_no_tenant_ever_sees_the_facts_of_another(
    pipeline: Callable[..., Pipeline], endpoint: Endpoint, moving: Counter[str]
) -> None:
    """Two tenants ask 200 questions by eight threads, through one service for each kind of answerer."""
    endpoint.faults(answer="Tickets are counted [F1].")
    rules = {"customer_id": "${claim:customer}"}
    seen, crossings = Counter[str](), list[object]()

    def ask(service: AssistantService, tenant: str, question: str) -> None:
        for _ in range(25):
            answer = service.ask(question, Scope(caller=Caller({"customer": tenant})))
            for fact in answer["facts"]:
                seen[f"{tenant} {fact['fact']}"] += 1
                crossings.extend(row for row in fact["rows"] if row[0] != tenant)
            seen["answers"] += 1
            other = "o'brien" if tenant == "acme" else "acme"
            crossings.extend([answer] if other in str(answer) else [])

    with (
        AssistantService(pipeline(OWN, model=None, access=rules), connections=3) as quoting,
        AssistantService(pipeline(OWN_SINCE, access=rules), connections=3) as wording,
        ThreadPoolExecutor(8) as pool,
    ):
        questions = [(quoting, "How many tickets are there?"), (wording, SINCE_DAY)]
        tasks = itertools.product(questions, ["acme", "o'brien"], range(2))
        waiting = [pool.submit(ask, service, tenant, question) for (service, question), tenant, _ in tasks]
        for future in waiting:
            future.result()
    assert crossings == []
    assert moving["moved"] > 0
    assert {"acme own", "o'brien own", "acme own_since", "o'brien own_since"} <= seen.keys(), seen
    assert min(seen.values()) > 0


EMPTY = {"name": "empty", "description": "how many tickets there are", "sql": "SELECT id FROM tickets WHERE id < 0"}
MANY = {
    "name": "many",
    "description": "how many tickets there are",
    "sql": "SELECT id FROM tickets ORDER BY id",
    "max_rows": 2,
}
BROKEN = {"name": "broken", "description": "how many tickets there are", "sql": "SELECT nothing FROM tickets"}


@pytest.mark.parametrize("model", [None, "bedrock"])
def test_facts_that_are_slow_empty_or_broken_are_left_out(
    pipeline: Callable[..., Pipeline], endpoint: Endpoint, caplog: pytest.LogCaptureFixture, model: str | None
) -> None:
    endpoint.faults(answer="Tickets are listed [F1]. There are more rows [F1].")
    with caplog.at_level(logging.WARNING):
        answer = commands.ask(pipeline(SLOW, EMPTY, BROKEN, MANY, model=model), "How many tickets are there?")
    (fact,) = answer["facts"]
    assert (fact["fact"], fact["rows"], fact["truncated"]) == ("many", [[0], [1]], True)
    logged = [r.__dict__["context"]["fact"] for r in caplog.records if r.getMessage() == "fact is left out"]
    assert sorted(logged) == ["broken", "slow"]


@pytest.mark.parametrize("model", [None, "bedrock"])
def test_a_warehouse_that_is_away_costs_an_answer_its_facts_alone(
    pipeline: Callable[..., Pipeline], ticket_warehouse: RedshiftConfig, endpoint: Endpoint, model: str | None
) -> None:
    endpoint.faults(answer="The printer jams on thick paper [1]. 6.75 hours were spent [F1].")
    away = ticket_warehouse.model_copy(update={"port": 9})
    answer = commands.ask(pipeline(HOURS, ALL, model=model, warehouse=away), PRINTER)
    assert (answer["facts"], answer["abstained"]) == ([], False)
    assert "thick paper" in answer["answer"]
    assert "6.75" not in answer["answer"]
