"""ONNX graphs of the default models, written node by node from published weights; no training framework is involved.

Preprocessing and pooling are inside the graph: token ids or raw pixels in, L2-normalised vectors out. Importing this module
imports `onnx`, which only building a pack needs.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 8

Weights = Mapping[str, NDArray[Any]]


class Graph:
    """A graph under construction: constants and nodes are added in order and referred to by name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: Any, dtype: type[np.generic] = np.float32) -> str:
        """Add an array once; a second call with the same name refers to the first."""
        if name not in self.constants:
            # Not ascontiguousarray: it turns a scalar into shape (1,), which only fails when the model runs.
            self.constants[name] = numpy_helper.from_array(np.asarray(value, dtype=dtype, order="C"), name)
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return the name of its only output."""
        output = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def finish(self, name: str, inputs: list[onnx.ValueInfoProto], *, result: str, dim: int) -> onnx.ModelProto:
        """The model; its output is called `embedding`, float32 of shape (batch, dim)."""
        self.nodes.append(helper.make_node("LpNormalization", [result], ["embedding"], axis=-1, p=2))
        output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", dim])
        graph = helper.make_graph(self.nodes, name, inputs, [output], list(self.constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
        return model


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write `path`, and beside it `{path}.data` with the weights: mapped into memory, not copied, it loads twice as fast."""
    onnx.save_model(model, str(path), save_as_external_data=True, location=f"{path.name}.data", size_threshold=1024)
    path.with_name(f"{path.name}.data").chmod(0o644)  # onnx makes it private; the folder may be shared by several users


def minilm(weights: Weights) -> onnx.ModelProto:
    """all-MiniLM-L6-v2: `input_ids` and `attention_mask`, int64 (batch, tokens ≤ 512) → `embedding` (batch, 384), mean-pooled."""
    layers, heads, width = 6, 12, 384
    graph = Graph()

    def norm(x: str, name: str) -> str:
        scale = graph.constant(f"{name}.weight", weights[f"{name}.weight"])
        return graph.add(
            "LayerNormalization", x, scale, graph.constant(f"{name}.bias", weights[f"{name}.bias"]), axis=-1, epsilon=1e-12
        )

    def dense(x: str, name: str) -> str:
        kernel = graph.constant(f"{name}.weight", weights[f"{name}.weight"].T)
        return graph.add("Add", graph.add("MatMul", x, kernel), graph.constant(f"{name}.bias", weights[f"{name}.bias"]))

    def split_heads(x: str, permutation: list[int]) -> str:
        shape = graph.constant("heads", [0, 0, heads, width // heads], np.int64)
        return graph.add("Transpose", graph.add("Reshape", x, shape), perm=permutation)

    def gelu(x: str) -> str:
        erf = graph.add("Erf", graph.add("Div", x, graph.constant("sqrt2", math.sqrt(2))))
        return graph.add("Mul", graph.add("Mul", x, graph.add("Add", erf, graph.constant("one", 1))), graph.constant("half", 0.5))

    words = graph.constant("words", weights["embeddings.word_embeddings.weight"])
    # Single texts only, so every token has type 0 and its row goes into the positions.
    table = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    tokens = graph.add("Shape", "input_ids", start=1, end=2)
    zero = graph.constant("first", [0], np.int64)
    positions = graph.add("Slice", graph.constant("positions", table), zero, tokens, zero)
    x = norm(graph.add("Add", graph.add("Gather", words, "input_ids"), positions), "embeddings.LayerNorm")

    mask = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    hidden = graph.add(
        "Mul", graph.add("Sub", graph.constant("one", 1), mask), graph.constant("minus_infinity", np.finfo(np.float32).min)
    )
    penalty = graph.add("Unsqueeze", hidden, graph.constant("head_axes", [1, 2], np.int64))
    scale = graph.constant("scale", 1 / math.sqrt(width // heads))
    for layer in range(layers):
        name = f"encoder.layer.{layer}"
        query = split_heads(dense(x, f"{name}.attention.self.query"), [0, 2, 1, 3])
        key = split_heads(dense(x, f"{name}.attention.self.key"), [0, 2, 3, 1])
        value = split_heads(dense(x, f"{name}.attention.self.value"), [0, 2, 1, 3])
        scores = graph.add("Add", graph.add("Mul", graph.add("MatMul", query, key), scale), penalty)
        mixed = graph.add("Transpose", graph.add("MatMul", graph.add("Softmax", scores, axis=-1), value), perm=[0, 2, 1, 3])
        merged = graph.add("Reshape", mixed, graph.constant("merged", [0, 0, width], np.int64))
        x = norm(graph.add("Add", dense(merged, f"{name}.attention.output.dense"), x), f"{name}.attention.output.LayerNorm")
        wide = gelu(dense(x, f"{name}.intermediate.dense"))
        x = norm(graph.add("Add", dense(wide, f"{name}.output.dense"), x), f"{name}.output.LayerNorm")

    axis = graph.constant("token_axis", [1], np.int64)
    kept = graph.add("Unsqueeze", mask, graph.constant("last_axis", [2], np.int64))
    total = graph.add("ReduceSum", graph.add("Mul", x, kept), axis, keepdims=0)
    count = graph.add("Max", graph.add("ReduceSum", kept, axis, keepdims=0), graph.constant("tiny", 1e-9))
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in ("input_ids", "attention_mask")
    ]
    return graph.finish("minilm", inputs, result=graph.add("Div", total, count), dim=width)


def efficientnet_lite0(weights: Weights) -> onnx.ModelProto:
    """EfficientNet-Lite0 without its classifier: `image`, uint8 RGB (batch, 224, 224, 3) → `embedding` (batch, 1280)."""
    halving_blocks, blocks = {1, 3, 5, 11}, 16
    graph = Graph()

    def convolve(x: str, conv: str, norm: str, *, stride: int = 1, activate: bool = True) -> str:
        """Convolution with its batch normalisation folded in (in float64, to lose nothing)."""
        kernel = weights[f"{conv}.weight"].astype(np.float64)
        scale = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"].astype(np.float64) + 1e-3)
        bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
        kernel_name = graph.constant(f"{conv}.weight", kernel * scale[:, None, None, None])
        groups = kernel.shape[0] if "depthwise" in conv else 1
        out = graph.add(
            "Conv", x, kernel_name, graph.constant(f"{conv}.bias", bias),
            auto_pad="SAME_UPPER", strides=[stride, stride], kernel_shape=kernel.shape[2:], group=groups,
        )  # fmt: skip
        return graph.add("Clip", out, graph.constant("zero", 0), graph.constant("six", 6)) if activate else out

    pixels = graph.add("Transpose", graph.add("Cast", "image", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    scaled = graph.add("Div", graph.add("Sub", pixels, graph.constant("mean", 127)), graph.constant("deviation", 128))
    x = convolve(scaled, "_conv_stem", "_bn0", stride=2)
    channels = weights["_conv_stem.weight"].shape[0]
    for block in range(blocks):
        name, stride, before = f"_blocks.{block}", 2 if block in halving_blocks else 1, x
        if f"{name}._expand_conv.weight" in weights:
            x = convolve(x, f"{name}._expand_conv", f"{name}._bn0")
        x = convolve(x, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride)
        x = convolve(x, f"{name}._project_conv", f"{name}._bn2", activate=False)
        made = weights[f"{name}._project_conv.weight"].shape[0]
        if stride == 1 and made == channels:
            x = graph.add("Add", x, before)
        channels = made
    x = graph.add("Flatten", graph.add("GlobalAveragePool", convolve(x, "_conv_head", "_bn1")))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 224, 224, 3])
    return graph.finish("efficientnet_lite0", [image], result=x, dim=1280)
