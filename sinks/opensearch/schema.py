"""The indexes of a store in OpenSearch: their names, their mappings, and the script that guards a write. Pure.

A document of a table is one document of OpenSearch with nested chunks: one write replaces both, so readers never see chunks of
two versions. Vectors are also stored by content hash, unindexed, so that a kill costs no second model call. Names carry the
index version's number: another model is filled beside the active one, which users read through the alias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sinks.opensearch.config import OpenSearchConfig
from sinks.versions import FIRST
from transforms.documents.languages import OWN, TablesOf
from transforms.documents.stop_words import STOP_WORDS

LAYOUT = "1"
MOST_CHUNKS = 100_000
"""The limit of nested documents in one document; OpenSearch's default is 10,000."""


@dataclass(frozen=True)
class Names:
    """Names of one store's indexes."""

    alias: str
    index_version: int = FIRST

    @property
    def documents(self) -> str:
        """Document rows with their chunks; the alias points at it."""
        return f"{self.alias}-g{self.index_version}"

    @property
    def vectors(self) -> str:
        """Vectors by content hash, which only writers read."""
        return f"{self.alias}-vectors-g{self.index_version}"

    @property
    def meta(self) -> str:
        """The facts that index versions share."""
        return f"{self.alias}-meta"


_STORED = {"type": "keyword", "index": False, "doc_values": False}
"""A text of any length that is read back, never searched."""


def mappings(config: OpenSearchConfig, names: Names, dimensions: int) -> dict[str, dict[str, Any]]:
    """The body of each index of an index version, by name; strict, so that no other field can be written."""
    settings = _settings(config)
    stop_words = {"stopwords": sorted(STOP_WORDS["english"])} if config.language == "english" else {}
    words = {"analysis": {"analyzer": {"words": {"type": analyzer(config.language), **stop_words}}}}
    wide = words | {"knn": True, "mapping": {"nested_objects": {"limit": MOST_CHUNKS}}, "max_inner_result_window": 1000}
    vector = {"content_hash": {"type": "keyword"}, "embedding": {"type": "binary"}, "created_at": {"type": "date"}}
    return {
        names.vectors: _body(settings, vector),
        names.documents: _body(settings | wide, _document(dimensions)),
    }


def meta_mapping(config: OpenSearchConfig) -> dict[str, Any]:
    """The body of the meta index."""
    return _body(_settings(config) | {"number_of_shards": 1}, {"value": _STORED})


def template(
    config: OpenSearchConfig, names: Names, dimensions: int, tables_of: TablesOf | None = None
) -> dict[str, Any]:
    """The template of the documents' index: an index that a write auto-creates gets the right mapping."""
    index = names.documents
    body = mappings(config, names, dimensions)[index]
    body["mappings"]["properties"]["chunks"]["properties"] |= in_languages(tables_of or {})
    return {"index_patterns": [index], "priority": 500, "template": body}


def in_languages(tables_of: TablesOf) -> dict[str, Any]:
    """The fields of a chunk in another language than the store's: its name, and its text once more, as that language has words.

    Their analyzers are built in, as no others can be added to an open index.
    """
    texts = {text_field(name): {"type": "text", "analyzer": analyzer(name), "norms": False} for name in tables_of}
    return {"language": {"type": "keyword"}, **texts} if texts else {}


def text_field(language: str) -> str:
    """The field of a chunk whose words are searched in a language."""
    return "chunk_text" if language == OWN else f"chunk_text_{language}"


def analyzer(language: str) -> str:
    """OpenSearch's own `simple` drops numbers; `standard` takes words as they stand."""
    return "standard" if language == "simple" else language


def shown(names: Names, active: Names) -> dict[str, Any]:
    """The request that moves the alias to one index version, atomically."""
    others = {"remove": {"index": f"{names.alias}-g*", "alias": names.alias, "must_exist": False}}
    alias = {"index": active.documents, "alias": names.alias, "filter": {"term": {"live": True}}}
    return {"actions": [others, {"add": alias}]}


LOADING: Mapping[str, Any] = {
    "refresh_interval": "30s", "translog.flush_threshold_size": "1gb", "merge.policy.segments_per_tier": 30,
}  # fmt: skip
"""Settings of an index in a load: fewer, larger segments, so that fewer graphs are built to be merged again (OpenSearch, "Tuning
your cluster for indexing speed"). Replicas and the translog's durability stay: no write may be lost."""


def _settings(config: OpenSearchConfig) -> dict[str, Any]:
    return {"number_of_shards": config.shards, "number_of_replicas": config.replicas}


def _body(settings: Mapping[str, Any], properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"settings": {"index": settings}, "mappings": {"dynamic": "strict", "properties": properties}}


def _document(dimensions: int) -> dict[str, Any]:
    method = {"name": "hnsw", "engine": "lucene", "parameters": {"m": 16, "ef_construction": 100}}
    return {
        "document_id": {"type": "keyword"}, "table_name": {"type": "keyword"}, "key": _STORED,
        "sequence": {"type": "keyword"}, "revision": {"type": "long", "index": False}, "live": {"type": "boolean"},
        "metadata": _STORED, "metadata_terms": {"type": "keyword", "doc_values": False}, "state": _STORED,
        "recipe": {"type": "keyword", "index": False}, "pending": {"type": "keyword"}, "commit_time_us": {"type": "long"},
        "written_at": {"type": "date"}, "chunk_count": {"type": "integer"},
        "chunks": {"type": "nested", "properties": {
            "chunk_id": {"type": "keyword"}, "chunk_index": {"type": "integer", "index": False},
            "content_hash": {"type": "keyword"}, "chunk_text": {"type": "text", "analyzer": "words"},
            "embedding": {
                "type": "knn_vector", "dimension": dimensions, "space_type": "cosinesimil", "method": method}}},
    }  # fmt: skip


GUARD = """
if (ctx.op == 'create' || ctx._source.revision != params.base || ctx._source.sequence.compareTo(params.sequence) > 0) {
  ctx.op = 'none';
  return;
}
Set dropped = new HashSet(params.dropped);
List chunks = new ArrayList();
for (chunk in ctx._source.chunks) {
  if (!dropped.contains(chunk.chunk_id)) {
    if (params.moved.containsKey(chunk.chunk_id)) { chunk.chunk_index = params.moved[chunk.chunk_id]; }
    chunks.add(chunk);
  }
}
chunks.addAll(params.added);
chunks.sort((one, other) -> one.chunk_index - other.chunk_index);
ctx._source = params.row;
ctx._source.revision = params.revision;
ctx._source.chunks = chunks;
ctx._source.chunk_count = chunks.size();
ctx._source.written_at = ctx._now;
"""
"""A guarded rewrite in OpenSearch: a noop unless planned on the stored revision and not older in sequence. Chunks that stay keep
their vectors. `sinks.opensearch.rows.replaced` is the same in Python."""


def visible(truncations: Mapping[str, str], *conditions: Mapping[str, Any]) -> dict[str, Any]:
    """A filter for documents that readers may see: live, and newer than the newest TRUNCATE of their table."""
    return {"bool": {"filter": [{"term": {"live": True}}, *conditions], "must_not": covered(truncations)}}


def covered(truncations: Mapping[str, str]) -> list[dict[str, Any]]:
    """Queries, one a table, for the rows that its newest TRUNCATE covers."""
    return [
        {"bool": {"filter": [{"term": {"table_name": table}}, {"range": {"sequence": {"lte": sequence}}}]}}
        for table, sequence in truncations.items()
    ]
