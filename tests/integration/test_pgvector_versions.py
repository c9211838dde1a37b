"""What a switch of index versions is to others than the pipeline: the view, and its rights; and a store of an older release."""

from __future__ import annotations

from contextlib import closing

import psycopg
from psycopg import sql
from pydantic import SecretStr, TypeAdapter

from embeddings import EmbeddingConfig, open_embedder
from embeddings.registry import registry_entry
from local_stack.models.service import ModelService
from retrieval.ranking.active_index import ActiveIndex
from sinks import open_index
from sinks.pgvector.config import PgvectorConfig
from sinks.pgvector.writer import PgvectorSink
from sinks.search import ANYTHING
from tests.feeding import DIMENSIONS, Fed, one_row
from tests.filtering import Rows, hit_numbers, where
from tests.helpdesk import document_spec, put
from tests.servers import unique

TABLE = "public.articles"


def test_the_view_follows_readers_and_whoever_might_read_still_may(vectors_dsn: str) -> None:
    config = PgvectorConfig(type="pgvector", dsn=SecretStr(vectors_dsn), table="kb")
    role = sql.Identifier(unique("reader"))
    with closing(PgvectorSink(config, "model=test", DIMENSIONS)) as sink, psycopg.connect(vectors_dsn) as admin:
        sink.prepare()
        Fed(sink)(one_row().changes)
        tables = ("kb", "kb_meta", "kb_tables", "kb_g1_documents", "kb_g1_chunks", "kb_g1_vectors")
        admin.execute(sql.SQL("CREATE ROLE {}").format(role))
        for table in tables:
            admin.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(sql.Identifier(table), role))
        admin.commit()
        try:
            announced = sink.change_index_versions(lambda versions: versions.announced("model=other", 4, {}))
            sink.sibling(announced.every[-1]).prepare()
            sink.change_index_versions(lambda versions: versions.reached("model=other", "ready"))
            sink.change_index_versions(lambda versions: versions.switched("model=other"))
            admin.execute(sql.SQL("SET ROLE {}").format(role))
            for table in ("kb", "kb_g2_documents", "kb_g2_chunks", "kb_g2_vectors"):
                assert admin.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone() == (
                    0,
                )
            admin.execute("RESET ROLE")
            admin.commit()  # a transaction that has read the view would keep it from being made anew
            sink.change_index_versions(lambda versions: versions.switched("model=test"))
            assert admin.execute("SELECT count(*) FROM kb").fetchone() == (1,)
        finally:
            admin.execute("RESET ROLE")
            admin.execute(sql.SQL("DROP OWNED BY {}").format(role))
            admin.execute(sql.SQL("DROP ROLE {}").format(role))
            admin.commit()


def test_a_store_of_an_older_release_hides_rows_until_written_again(vectors_dsn: str) -> None:
    config = PgvectorConfig(type="pgvector", dsn=SecretStr(vectors_dsn), table="kb")
    with closing(PgvectorSink(config, "model=test", DIMENSIONS)) as sink:
        sink.prepare()
        rows = Rows(sink)
        rows.put_all({1: {"name": "acme", "body": "row one"}, 2: {"name": "acme", "body": "row two"}})
        with psycopg.connect(vectors_dsn) as admin:
            admin.execute("ALTER TABLE kb_g1_documents DROP COLUMN metadata_terms")
        sink.prepare()
        sink.prepare()
        with closing(open_index(config, "model=test")) as index:
            for condition in ("name = acme", "name != globex", "name is null", "name is not null", "name < z"):
                assert hit_numbers(index, "dense", where(condition)) == set()
            assert hit_numbers(index, "lexical", where()) == {1, 2}
            rows.put(1, {"name": "acme", "body": "row one"})
            assert hit_numbers(index, "dense", where("name = acme")) == {1}


def test_a_search_itself_notices_that_another_index_version_is_active(
    vectors_dsn: str, instant_model: ModelService
) -> None:
    adapter: TypeAdapter[EmbeddingConfig] = TypeAdapter(EmbeddingConfig)
    models = {
        dimensions: adapter.validate_python(
            {"type": "bedrock", "model": "cohere.embed-v4:0", "dimensions": dimensions, **instant_model.endpoint}
        )
        for dimensions in (512, 1024)
    }
    old, new = (open_embedder(model) for model in models.values())
    config = PgvectorConfig(type="pgvector", dsn=SecretStr(vectors_dsn), table="kb")
    article = {"id": 1, "title": "Skua mast", "body": "A Skua mast is painted every spring."}
    with (
        closing(PgvectorSink(config, old.fingerprint, 512)) as sink,
        closing(ActiveIndex(config, models[512])) as index,
    ):

        def searched() -> tuple[int | None, int, list[int]]:
            result = index.search("When is a Skua mast painted?", 3, ANYTHING)
            assert result.question is not None
            number = None if result.active is None else result.active.number
            return number, len(result.question.vector), [ranked.hit.key["id"] for ranked in result.results]

        sink.prepare()
        put(sink, old, TABLE, [article], specs={TABLE: document_spec(TABLE)})
        assert [searched(), searched()] == [(1, 512, [1])] * 2
        announced = sink.change_index_versions(
            lambda versions: versions.announced(new.fingerprint, 1024, registry_entry(models[1024]))
        )
        other = sink.sibling(announced.every[-1])
        other.prepare()
        put(other, new, TABLE, [article], specs={TABLE: document_spec(TABLE)})
        sink.change_index_versions(lambda versions: versions.reached(new.fingerprint, "ready"))
        assert searched() == (1, 512, [1])
        sink.change_index_versions(lambda versions: versions.switched(new.fingerprint))
        assert [searched(), searched()] == [(2, 1024, [1])] * 2
        sink.change_index_versions(lambda versions: versions.switched(old.fingerprint))
        sink.drop(2)
        assert searched() == (1, 512, [1])
