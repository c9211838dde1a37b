"""`ragstream table` and `ragstream rebuild`."""

from __future__ import annotations

import click

from glue_jobs.cli import CONFIG


@click.command()
@CONFIG
@click.argument("table")
def table(config: str, table: str) -> None:
    """Print the current rows of TABLE from the lake of CONFIG, one JSON object a line, as fresh as `changes`."""
    from glue_jobs.config import decode_context, load_config
    from lake.current import current_rows
    from lake.layout import LakeLayout
    from schemas.errors import ConfigurationError
    from transforms import exact_json

    loaded = load_config(config)
    found = next((t for t in loaded.tables if t.table == table), None)
    if found is None:
        raise ConfigurationError(
            f"{config}: table {table!r} is not configured.",
            condition="TABLE_UNKNOWN",
            hint=f"It has {', '.join(t.table for t in loaded.tables)}.",
        )
    contexts = {source.name: decode_context(loaded, source.name) for source in loaded.sources}
    for row in current_rows(LakeLayout(loaded.lake.path), found, contexts):
        click.echo(exact_json.dumps(row))


@click.command()
@CONFIG
@click.argument("store")
def rebuild(config: str, store: str) -> None:
    """Write STORE from the lake of CONFIG alone, also while the pipeline runs; what it holds already is left alone."""
    from rich.console import Console
    from rich.progress import Progress

    from embeddings import open_embedder
    from glue_jobs.config import decode_context, load_config
    from lake.layout import LakeLayout
    from lake.rebuild import Rebuild
    from schemas.errors import ConfigurationError
    from sinks import open_sink

    loaded = load_config(config)
    found = next((sink for sink in loaded.sinks if sink.name == store), None)
    if found is None or loaded.embedding is None:
        raise ConfigurationError(
            f"{config}: there is no store {store!r}, or no embedding to fill it with.",
            condition="STORE_UNKNOWN",
            hint=f"It has {', '.join(sink.name for sink in loaded.sinks) or 'none'}.",
        )
    embedder = open_embedder(loaded.embedding)
    sink = open_sink(found, embedder.fingerprint, embedder.dimensions)
    contexts = {source.name: decode_context(loaded, source.name) for source in loaded.sources}
    with Progress(console=Console(stderr=True)) as bar:
        tasks = {table.table: bar.add_task(table.table, total=None) for table in loaded.tables if table.document}
        rebuilt = Rebuild(LakeLayout(loaded.lake.path), contexts, sink, embedder).run(
            loaded.tables, lambda table, done, total: bar.update(tasks[table], completed=done, total=total)
        )
    sink.close()
    click.echo(
        f"{rebuilt.rows} rows, {rebuilt.written} documents written, {rebuilt.from_cache} vectors from the cache, "
        f"{rebuilt.texts_sent} texts sent to the model"
    )
