"""Nobody is shown a row that is another's, while rows move between tenants, in every store."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress

import pytest

from retrieval.access import Access
from retrieval.answering.ask import Assistant
from retrieval.ranking.fusion import Ranked, Relevance, Tuning
from retrieval.ranking.search import Searcher
from schemas.caller import Caller
from schemas.errors import UnavailableError
from schemas.tables import DocumentConfig, TableConfig
from sinks import open_index
from sinks.protocol import Sink
from sinks.search import ANYTHING
from tests.answering import Quoting
from tests.contract.conftest import STORES
from tests.feeding import CountingEmbedder
from tests.filtering import Rows
from tests.history import TABLE
from tests.stores import Store

pytestmark = pytest.mark.parametrize("store", [s for s in STORES if s != "opensearch_by_seq_no"], indirect=True)

NOTES = TableConfig(table=TABLE, keys=("id",), document=DocumentConfig(template="{body}", metadata=("tenant", "kind")))
ACCESS = Access({"tenant": "${claim:tenant}"}, (NOTES,))
ALL = Tuning(Relevance(alone=-1, base=-1, per_coverage=0, least=-1))
ACME, GLOBEX = Caller({"tenant": "acme"}), Caller({"tenant": "globex"})
LEAST_ASKED, MOST_MOVES = 60, 1_000


@pytest.fixture
def rows(sink: Sink) -> Rows:
    sink.check()
    return Rows(sink, NOTES)


@pytest.fixture
def searcher(store: Store, sink: Sink) -> Iterator[Searcher]:
    sink.check()
    with closing(open_index(store.config, "model=test")) as index:
        yield Searcher(index, CountingEmbedder(), ALL)


def of(tenant: str, what: object = "") -> dict[str, str]:
    """A row whose text says whose it is."""
    return {"tenant": tenant, "kind": "note", "body": f"secret note of {tenant} {what}"}


def seen(searcher: Searcher, caller: Caller) -> list[str]:
    result = searcher.search("secret note", 20, ACCESS.applied(ANYTHING, caller))
    return [ranked.hit.chunk_text for ranked in result.results]


def test_a_caller_finds_the_rows_of_its_claims_and_no_others(rows: Rows, searcher: Searcher) -> None:
    rows.put_all({number: of(("acme", "globex")[number % 2], number) for number in range(10)})
    rows.put(10, {"tenant": None, "kind": "note", "body": "secret note of nobody"})
    rows.put(11, {"kind": "note", "body": "secret note of one untold"}, whole=False)
    assert len(seen(searcher, ACME)) == len(seen(searcher, GLOBEX)) == 5
    assert all("acme" in text for text in seen(searcher, ACME))
    assert len(seen(searcher, Caller({"tenant": ("acme", "globex")}))) == 10
    strangers: list[Caller] = [
        Caller(), Caller({"tenant": ""}), Caller({"tenant": ()}), Caller({"tenant": "acm"}), Caller({"tenant": "ACME"}),
        Caller({"sub": "acme"}), Caller({"tenant": "acme' OR '1'='1"}), Caller({"tenant": "*"}), Caller({"tenant": True}),
        Caller({"tenant": '["acme"]'}), Caller({"tenant": '{"$ne": null}'}), Caller({"tenant": "None"}),
        Caller({"tenant": "null"}),
    ]  # fmt: skip
    assert [seen(searcher, stranger) for stranger in strangers] == [[]] * len(strangers)


def test_an_answer_from_a_row_that_moved_meanwhile_is_not_given(rows: Rows, searcher: Searcher) -> None:
    rows.put(1, of("acme"))
    quoting = Quoting(lambda _: rows.put(1, of("acme") | {"tenant": "globex"}))
    answer = Assistant(searcher, quoting, ACCESS).ask("secret note", caller=ACME)
    assert (answer.abstained, "acme" in answer.text, len(quoting.questions)) == (True, False, 1)
    globex_answer = Assistant(searcher, Quoting(), ACCESS).ask("secret note", caller=GLOBEX)
    assert "acme" in globex_answer.text  # its text did not change, and it is theirs now


def test_rows_an_answer_was_written_from_uncited_are_looked_up_too(rows: Rows, searcher: Searcher) -> None:
    rows.put_all({1: of("acme", 1), 2: of("acme", 2)})

    def move_the_uncited(sources: Sequence[Ranked]) -> None:
        if len(sources) == 2:
            number = sources[1].hit.key["id"]
            rows.put(number, of("acme", number) | {"tenant": "globex"})

    quoting = Quoting(move_the_uncited)
    answer = Assistant(searcher, quoting, ACCESS).ask("secret note", caller=ACME)
    assert answer.text.startswith("secret note of acme")
    assert len(quoting.questions) == 2


def test_rows_that_move_while_two_tenants_ask_are_never_crossed(store: Store, rows: Rows) -> None:
    rows.put_all({number: of(("acme", "globex")[number % 2], number) for number in range(6)})
    done, crossings, asked = threading.Event(), list[str](), {"acme": 0, "globex": 0}
    moves = 0

    def move() -> None:
        nonlocal moves
        try:
            while min(asked.values()) < LEAST_ASKED and moves < MOST_MOVES:
                rows.put_all({number: of(("acme", "globex")[(number + moves) % 2], moves) for number in range(3)})
                moves += 1
        finally:
            done.set()

    def ask(caller: Caller, own: str, other: str) -> None:
        with closing(open_index(store.config, "model=test")) as index:
            mine = Searcher(index, CountingEmbedder(), ALL)
            assistant = Assistant(mine, Quoting(), ACCESS)
            while not done.is_set():
                texts = seen(mine, caller)
                with suppress(UnavailableError):  # it moved at each try
                    texts.append(assistant.ask("secret note", caller=caller).text)
                crossings.extend(text for text in texts if other in text)
                asked[own] += len(texts)

    threads = [threading.Thread(target=move)]
    threads += [
        threading.Thread(target=ask, args=arguments)
        for arguments in ((ACME, "acme", "globex"), (GLOBEX, "globex", "acme"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert crossings == []
    assert min(asked.values()) >= LEAST_ASKED
    assert moves > 10
