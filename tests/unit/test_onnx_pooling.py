"""A model that gives a vector for each token, as most exports to ONNX do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from embeddings.errors import EmbeddingRejectedError
from embeddings.onnx.config import LocalEmbeddingConfig
from embeddings.onnx.embedder import LocalEmbedder
from local_stack.models.minilm import package_files

WORDS, WIDTH = 30_522, 4
TABLE = np.random.default_rng(3).standard_normal((WORDS, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph that looks each token up, and takes segments too."""
    made = tmp_path_factory.mktemp("tokens")
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "token_type_ids")
    ]
    nodes = [
        helper.make_node("Add", ["input_ids", "token_type_ids"], ["ids"]),
        helper.make_node("Gather", ["table", "ids"], ["last_hidden_state"]),
    ]
    out = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "tokens", WIDTH])
    graph = helper.make_graph(nodes, "tokens", inputs, [out], [numpy_helper.from_array(TABLE, "table")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    onnx.save(model, made / "model.onnx")
    shutil.copy(package_files() / "tokenizer.json", made)
    return made


def embedder(folder: Path, **changes: Any) -> LocalEmbedder:
    fields = {"type": "local", "path": folder, "model": "tokens", "dimensions": WIDTH} | changes
    return LocalEmbedder(LocalEmbeddingConfig.model_validate(fields))


def unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / np.linalg.norm(vector))


def test_a_text_has_its_first_tokens_vector_or_the_mean_of_all(folder: Path) -> None:
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("red kite").ids
    ids = [token for token in ids if token]
    (first,) = embedder(folder, pooling="cls").embed_documents(["red kite"])
    assert np.allclose(np.asarray(first), unit(TABLE[ids[0]]), atol=1e-6)
    (mean,) = embedder(folder, pooling="mean").embed_documents(["red kite"])
    assert np.allclose(np.asarray(mean), unit(TABLE[ids].mean(axis=0)), atol=1e-6)


def test_a_question_stands_behind_its_prefix_and_a_blank_one_nowhere(folder: Path) -> None:
    asking = embedder(folder, pooling="mean", query_prefix="red ")
    assert np.array_equal(asking.embed_query("kite"), np.asarray(asking.embed_documents(["red kite"])[0]))
    with pytest.raises(EmbeddingRejectedError):
        asking.embed_query("  ")


def test_pooling_is_part_of_what_a_vector_depends_on(folder: Path) -> None:
    names = {pooling: embedder(folder, pooling=pooling).fingerprint for pooling in ("none", "cls", "mean")}
    assert len(set(names.values())) == 3
    assert "pooling" not in names["none"]
