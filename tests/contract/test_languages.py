"""Each table is searched in its own language, and one question ranks rows of several, the same in every store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from schemas.languages import Language
from schemas.tables import ChunkConfig, DocumentConfig, TableConfig
from sinks import open_index
from sinks.protocol import Sink
from sinks.search import Filters, Grant, Hit, Index, Question
from tests.contract.conftest import STORES
from tests.feeding import DOCUMENT, SPECS, Fed, vector_of
from tests.filtering import Rows
from tests.history import TABLE, ModelTable, key_of
from tests.stores import Store
from transforms.documents.planning import DocumentSpec, document_id
from transforms.filters.parsing import Filterable, parse

pytestmark = pytest.mark.parametrize("store", [s for s in STORES if s != "opensearch_by_seq_no"], indirect=True)


def table(name: str, language: Language | None) -> TableConfig:
    document = DocumentConfig(
        template="{body}", metadata=("tenant",), language=language, chunk=ChunkConfig(max_tokens=200)
    )
    return TableConfig(table=f"public.{name}", keys=("id",), document=document)


ARTICLES, ARTIKEL, FICHES, CODES = (
    table("articles", None), table("artikel", "german"), table("fiches", "french"), table("codes", "simple"),
)  # fmt: skip

ENGLISH = [
    "How to reset the password of a router.", "The depots in the north close at noon.", "Die casting needs a clean mould.",
    "Batteries of the old radios are charged over night.",
]  # fmt: skip
GERMAN = [
    "Die Häuser am Fluss haben größere Fenster und neue Türen.", "Das Passwort des Routers wird im Menü zurückgesetzt.",
    "Der Zähler H2-0093 wurde am Montag geprüft.", "Die Straße zum Lager ist bis zum Abend gesperrt.",
]  # fmt: skip
FRENCH = [
    "Les batteries des anciennes radios sont chargées pendant la nuit.", "L'adresse du dépôt a été changée hier.",
    "Le mot de passe du routeur est réinitialisé dans le menu.",
]  # fmt: skip
SIMPLE = ["der the le H2-0093 running", "THE END of Fluss"]


def put(sink: Sink, config: TableConfig, bodies: Sequence[str]) -> None:
    Rows(sink, config).put_all(
        {n: {"body": body, "tenant": ("acme", "globex")[n % 2]} for n, body in enumerate(bodies)}
    )


@pytest.fixture
def filled(store: Store, sink: Sink) -> Iterator[Index]:
    """A store of English whose other tables say theirs."""
    for config, bodies in ((ARTICLES, ENGLISH), (ARTIKEL, GERMAN), (FICHES, FRENCH), (CODES, SIMPLE)):
        put(sink, config, bodies)
    with closing(open_index(store.config, "model=test")) as index:
        yield index


def ask(index: Index, text: str, filters: Filters | None = None, way: str = "lexical") -> list[Hit]:
    hits: list[Hit] = getattr(index, way)(Question(text, vector_of(text)), 50, filters or Filters())
    return hits


def texts(hits: Sequence[Hit]) -> list[str]:
    return [hit.chunk_text for hit in hits]


def test_a_row_is_found_by_other_forms_of_its_language_s_words(filled: Index) -> None:
    first = {
        "Haus mit großem Fenster": GERMAN[0], "Wo ist die Tür am Fluss?": GERMAN[0],
        "Welche Zähler prüfte man am Montag?": GERMAN[2], "Straßen zum Lager": GERMAN[3],
        "charger une batterie la nuit": FRENCH[0], "Quelle est l'adresse des dépôts ?": FRENCH[1],
        "How is the battery of a radio charged?": ENGLISH[3], "Does the depot close?": ENGLISH[1], "running": SIMPLE[0],
    }  # fmt: skip
    assert {question: texts(ask(filled, question))[0] for question in first} == first


def test_a_language_that_comes_is_searched_by_the_next_question(store: Store, sink: Sink) -> None:
    put(sink, ARTICLES, ENGLISH)
    text = "Haus mit großem Fenster"
    question = Question(text, vector_of(text))
    with closing(open_index(store.config, "model=test")) as index:
        assert index.search(question, 50).lexical == []
        put(sink, ARTIKEL, GERMAN)
        assert texts(index.search(question, 50).lexical) == [GERMAN[0]]
        assert index.search(question, 50, Filters((ARTICLES.table,))).lexical == []


def test_stop_words_of_the_question_s_language_find_nothing_in_any(filled: Index) -> None:
    assert ask(filled, "wie ist das und die der") == []
    assert ask(filled, "how do the and of it") == []
    assert ask(filled, "ce que la une dans") == []


def test_all_words_of_a_row_cover_it_in_every_language(filled: Index) -> None:
    for text in (ENGLISH[0], GERMAN[1], FRENCH[2], SIMPLE[1]):
        (best, *others) = ask(filled, text)
        assert best.chunk_text == text
        assert best.coverage == pytest.approx(1)
        assert all(hit.coverage < 0.6 for hit in others)


def test_a_code_is_found_in_rows_of_every_language(filled: Index) -> None:
    for question in ("What is H2-0093?", "Was ist mit H2-0093?", "H2-0093"):
        assert {GERMAN[2], SIMPLE[0]} <= set(texts(ask(filled, question)))
        assert all(hit.coverage == pytest.approx(1) for hit in ask(filled, question)[:2])


def test_a_dense_hit_has_the_coverage_of_its_language(filled: Index) -> None:
    by_text = {hit.chunk_text: hit.coverage for hit in ask(filled, "Fenster der Häuser", way="dense")}
    assert len(by_text) == len(ENGLISH) + len(GERMAN) + len(FRENCH) + len(SIMPLE)
    assert by_text[GERMAN[0]] == pytest.approx(1)
    assert sum(coverage > 0 for coverage in by_text.values()) == 1


def test_tables_filters_and_access_hold_in_every_language(filled: Index) -> None:
    acme = (parse("tenant = acme", Filterable({ARTIKEL.table: {"tenant": "text"}})),)
    question = "password Passwort Fenster mot batteries"
    assert {hit.table for hit in ask(filled, question)} == {ARTICLES.table, ARTIKEL.table, FICHES.table}
    assert {hit.table for hit in ask(filled, question, Filters((ARTIKEL.table,)))} == {ARTIKEL.table}
    assert texts(ask(filled, question, Filters((ARTIKEL.table,), acme))) == [GERMAN[0]]
    granted = Filters(access=(Grant((ARTIKEL.table, FICHES.table), acme),))
    assert {hit.table for hit in ask(filled, question, granted)} == {ARTIKEL.table, FICHES.table}
    assert {hit.metadata["tenant"] for hit in ask(filled, question, granted)} == {"acme"}
    assert ask(filled, question, Filters(access=())) == []


def test_a_text_is_covered_in_the_language_that_it_is_of(filled: Index) -> None:
    german, english = filled.coverage("Türen der Häuser", ["Neue Tür im Haus", "New door of a house"])
    assert [german, english] == pytest.approx([1, 0])
    assert filled.coverage("charged battery", ["Batteries are charging"]) == [pytest.approx(1)]


def test_a_table_given_its_language_is_written_anew_without_the_model(store: Store, sink: Sink) -> None:
    rows, fed = ModelTable(), Fed(sink)
    for number, body in enumerate(GERMAN):
        rows.insert(number, body)
    fed(rows.changes)
    put(sink, ARTICLES, ENGLISH)
    asked = len(fed.embedder.texts)
    spec = DocumentSpec(TABLE, DOCUMENT.model_copy(update={"language": "german"}))
    with closing(open_index(store.config, "model=test")) as index:
        assert GERMAN[3] in ask(index, "Straße")[0].chunk_text  # as it stands there
        assert ask(index, "Straßen") == []
        old = {hit.document_id: hit.chunk_id for hit in ask(index, "body", way="dense")}
        assert {digest for name, digest in sink.documents_by_spec() if name == TABLE} == {SPECS[TABLE].digest}
        fed.change_recipe(spec)
        fed(rows.changes)
        assert len(fed.embedder.texts) == asked
        assert {digest for name, digest in sink.documents_by_spec() if name == TABLE} == {spec.digest}
        assert GERMAN[3] in ask(index, "Straßen")[0].chunk_text
        assert texts(ask(index, "depot"))[0] == ENGLISH[1]
        new = {hit.document_id: hit.chunk_id for hit in ask(index, "body", way="dense")}
        assert {name for name in old if old[name] != new[name]} == {
            document_id(TABLE, key_of(n)) for n in range(len(GERMAN))
        }


def test_another_index_version_learns_its_languages_too(store: Store, sink: Sink) -> None:
    put(sink, ARTIKEL, GERMAN)
    sink.change_index_versions(lambda versions: versions.announced("model=other", 8, {}))
    other = store.open("model=other")
    other.prepare()
    put(other, ARTIKEL, GERMAN[1:])
    put(other, ARTICLES, ENGLISH)
    with closing(open_index(store.config, "model=other", 2)) as index:
        assert texts(ask(index, "Straßen")) == [GERMAN[3]]
        assert ask(index, "Tür") == []
        assert texts(ask(index, "depots")) == [ENGLISH[1]]


def test_writers_that_learn_a_language_at_once_lose_nothing(store: Store, sink: Sink) -> None:
    put(sink, ARTICLES, ENGLISH)

    def write(config: TableConfig, bodies: Sequence[str]) -> None:
        put(store.open(), config, bodies)

    with ThreadPoolExecutor(3) as pool:
        parts = ((ARTIKEL, GERMAN), (FICHES, FRENCH), (table("notizen", "german"), GERMAN))
        for job in [pool.submit(write, *part) for part in parts]:
            job.result(timeout=60)
    with closing(open_index(store.config, "model=test")) as index:
        assert {(hit.table, hit.chunk_text) for hit in ask(index, "Tür")} == {
            (ARTIKEL.table, GERMAN[0]), ("public.notizen", GERMAN[0]),
        }  # fmt: skip
        assert texts(ask(index, "adresses des dépôts"))[0] == FRENCH[1]


def test_a_store_s_own_language_needs_no_name(store: Store, sink: Sink) -> None:
    put(sink, table("articles", "english"), ENGLISH)
    put(sink, table("others", None), ["The depot is in the south."])
    with closing(open_index(store.config, "model=test")) as index:
        assert set(texts(ask(index, "depots"))) == {ENGLISH[1], "The depot is in the south."}
