"""The ONNX graph of all-MiniLM-L6-v2, built from its published weights without PyTorch.

The graph is a whole sentence encoder: token ids and attention mask in, unit vectors out (encoder, mean pooling and L2
inside). It uses onnxruntime's own fused operators for attention, GELU and the residual normalisations, so it runs in
onnxruntime only, and needs no optimiser pass to run fast.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

type Weights = Mapping[str, NDArray[np.float32]]

LAYERS = 6
HEADS = 12
HIDDEN = 384
EPSILON = 1e-12
"""`num_hidden_layers`, `num_attention_heads`, `hidden_size`, `layer_norm_eps` of the model's config.json."""

_OPSET = 18
_FUSED = "com.microsoft"
_MASKED = -1e30
"""Added to the scores of padding: exp() of it is exactly 0, so padding changes no other token."""


def read_safetensors(path: Path) -> Weights:
    """Read every float32 tensor of a safetensors file; other types are left out (the position ids, which are 0, 1, 2 …)."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] == "F32":
            start, end = entry["data_offsets"]
            flat = np.frombuffer(raw[8 + length + start : 8 + length + end], np.float32)
            tensors[name] = flat.reshape(entry["shape"])
    return tensors


def build_minilm(weights: Weights) -> onnx.ModelProto:
    """Return the graph `input_ids`, `attention_mask` (int64, batch × tokens) → `embedding` (float32, batch × 384).

    A second output are the tokens' own vectors: `token_embeddings` (batch × tokens × 384).
    """
    graph = _Graph([], [])
    mask = graph.add("Cast", ["attention_mask"], to=TensorProto.INT32)
    hidden = _embed_tokens(graph, weights)
    for layer in range(LAYERS):
        hidden = _encode(graph, weights, f"encoder.layer.{layer}", hidden, mask)
    graph.add("Identity", [hidden], "token_embeddings")
    _pool(graph, hidden)
    ids, attention = (
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask")
    )
    vectors = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", HIDDEN])
    tokens = helper.make_tensor_value_info("token_embeddings", TensorProto.FLOAT, ["batch", "tokens", HIDDEN])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "all-MiniLM-L6-v2", [ids, attention], [vectors, tokens], graph.constants),
        opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid(_FUSED, 1)],
        producer_name="ragstream",
    )
    model.ir_version = 9  # the newest that every onnxruntime of the last two years reads
    return model


@dataclass(slots=True)
class _Graph:
    """Nodes and constants as they are added; every node has one output that is used."""

    nodes: list[onnx.NodeProto]
    constants: list[onnx.TensorProto]

    def add(self, operator: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        name = output or f"{operator}_{len(self.nodes)}"
        domain = _FUSED if operator in {"Attention", "BiasGelu", "SkipLayerNormalization"} else ""
        self.nodes.append(helper.make_node(operator, inputs, [name], domain=domain, **attributes))
        return name

    def constant(self, array: NDArray[np.float32] | NDArray[np.int64]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name


def _embed_tokens(graph: _Graph, weights: Weights) -> str:
    """Add word, position and segment vectors (every token is in segment 0), then normalise."""
    table = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    words = graph.add("Gather", [graph.constant(weights["embeddings.word_embeddings.weight"]), "input_ids"])
    tokens = graph.add("Shape", ["input_ids"], start=1, end=2)
    zero, axis = graph.constant(np.array([0], np.int64)), graph.constant(np.array([0], np.int64))
    positions = graph.add("Slice", [graph.constant(table), zero, tokens, axis])
    summed = graph.add("Add", [words, positions])
    gamma, beta = _normal(graph, weights, "embeddings.LayerNorm")
    return graph.add("LayerNormalization", [summed, gamma, beta], axis=-1, epsilon=EPSILON)


def _encode(graph: _Graph, weights: Weights, layer: str, hidden: str, mask: str) -> str:
    """Add one transformer layer: attention, then the two dense layers, each with residual and normalisation."""
    parts = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
    packed = np.concatenate([weights[f"{part}.weight"].T for part in parts], axis=1)
    bias = np.concatenate([weights[f"{part}.bias"] for part in parts])
    attended = graph.add(
        "Attention",
        [hidden, graph.constant(packed), graph.constant(bias), mask],
        num_heads=HEADS,
        mask_filter_value=_MASKED,
    )
    hidden = _dense_and_skip(graph, weights, f"{layer}.attention.output", attended, hidden)
    wide = graph.add("MatMul", [hidden, graph.constant(weights[f"{layer}.intermediate.dense.weight"].T)])
    active = graph.add("BiasGelu", [wide, graph.constant(weights[f"{layer}.intermediate.dense.bias"])])
    return _dense_and_skip(graph, weights, f"{layer}.output", active, hidden)


def _dense_and_skip(graph: _Graph, weights: Weights, name: str, values: str, skip: str) -> str:
    dense = graph.add("MatMul", [values, graph.constant(weights[f"{name}.dense.weight"].T)])
    bias = graph.constant(weights[f"{name}.dense.bias"])
    return graph.add(
        "SkipLayerNormalization", [dense, skip, *_normal(graph, weights, f"{name}.LayerNorm"), bias], epsilon=EPSILON
    )


def _normal(graph: _Graph, weights: Weights, name: str) -> tuple[str, str]:
    return graph.constant(weights[f"{name}.weight"]), graph.constant(weights[f"{name}.bias"])


def _pool(graph: _Graph, hidden: str) -> None:
    """Average the vectors of the real tokens and scale the result to length 1."""
    last, tokens_axis = graph.constant(np.array([-1], np.int64)), graph.constant(np.array([1], np.int64))
    mask = graph.add("Unsqueeze", [graph.add("Cast", ["attention_mask"], to=TensorProto.FLOAT), last])
    total = graph.add("ReduceSum", [graph.add("Mul", [hidden, mask]), tokens_axis], keepdims=0)
    # The length of a mean and of its sum differ by a factor that scaling to 1 takes out, so nothing is divided by a count.
    length = graph.add("ReduceL2", [total, last], keepdims=1)
    graph.add("Div", [total, length], output="embedding")
