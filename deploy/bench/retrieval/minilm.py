"""all-MiniLM-L6-v2 for the peers, from the weights Docmill uses and as the same ONNX graph: no torch, nothing from a hub.

`MiniLM(folder).embed(texts)` gives unit vectors (float32, 384 wide): mean pooling over at most 256 tokens, as Docmill does.
"""

import json
import pathlib
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file
from tokenizers import Tokenizer

WINDOW = 256


def build(folder):
    """The encoder as ONNX bytes: BERT with ONNX Runtime's fused operators, opset 17."""
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    layers, epsilon = config["num_hidden_layers"], config["layer_norm_eps"]
    tensors, nodes = [], []

    def tensor(name, value):
        tensors.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(operator, inputs, output, **attributes):
        own = operator in ("Attention", "SkipLayerNormalization", "BiasGelu")
        nodes.append(helper.make_node(operator, inputs, [output], domain="com.microsoft" if own else "", **attributes))

    def kept(name):
        return tensor(name, weights[name])

    positions = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    node("Gather", [tensor("words", weights["embeddings.word_embeddings.weight"]), "input_ids"], "word")
    tensor("zero", np.array([0], dtype=np.int64))
    node("Shape", ["input_ids"], "length", start=1, end=2)
    node("Slice", [tensor("positions", positions), "zero", "length", "zero"], "position")
    node("Add", ["word", "position"], "sum")
    normal = [kept("embeddings.LayerNorm.weight"), kept("embeddings.LayerNorm.bias")]
    node("LayerNormalization", ["sum", *normal], "hidden.0", axis=-1, epsilon=epsilon)
    node("Cast", ["attention_mask"], "mask", to=TensorProto.INT32)
    for layer in range(layers):
        part = lambda name: f"encoder.layer.{layer}.{name}"
        roles = [part(f"attention.self.{role}") for role in ("query", "key", "value")]
        qkv = tensor(part("qkv.weight"), np.concatenate([weights[f"{role}.weight"].T for role in roles], axis=1))
        bias = tensor(part("qkv.bias"), np.concatenate([weights[f"{role}.bias"] for role in roles]))
        names = {}
        for short, name in (("out", "attention.output.dense"), ("up", "intermediate.dense"), ("down", "output.dense")):
            names[short] = tensor(part(name) + ".weight", weights[part(name) + ".weight"].T), kept(part(name) + ".bias")
        norms = [[kept(part(f"{name}.LayerNorm.{side}")) for side in ("weight", "bias")] for name in ("attention.output", "output")]
        source = f"hidden.{layer}"
        target = "last_hidden_state" if layer + 1 == layers else f"hidden.{layer + 1}"
        node("Attention", [source, qkv, bias, "mask"], f"attended.{layer}", num_heads=config["num_attention_heads"])
        node("MatMul", [f"attended.{layer}", names["out"][0]], f"projected.{layer}")
        node("SkipLayerNormalization", [f"projected.{layer}", source, *norms[0], names["out"][1]], f"middle.{layer}", epsilon=epsilon)
        node("MatMul", [f"middle.{layer}", names["up"][0]], f"up.{layer}")
        node("BiasGelu", [f"up.{layer}", names["up"][1]], f"gelu.{layer}")
        node("MatMul", [f"gelu.{layer}", names["down"][0]], f"down.{layer}")
        node("SkipLayerNormalization", [f"down.{layer}", f"middle.{layer}", *norms[1], names["down"][1]], target, epsilon=epsilon)
    shape = ["batch", "tokens"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*shape, config["hidden_size"]])]
    graph = helper.make_graph(nodes, "minilm", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


class MiniLM:
    """The model with `threads` cores."""

    def __init__(self, folder, threads=1):
        folder = pathlib.Path(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(build(folder), options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(WINDOW)
        self.tokenizer.no_padding()

    def embed(self, texts, batch=16):
        """Unit vectors in the order of `texts`; batches hold texts of similar length."""
        vectors = np.zeros((len(texts), 384), dtype=np.float32)
        for places, _, mask, hidden in self.hidden(texts, batch):
            pooled = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
            vectors[places] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return vectors

    def hidden(self, texts, batch=16):
        """States of the last layer, a batch at a time: places in `texts`, their lengths in tokens, mask, states."""
        encoded = self.tokenizer.encode_batch(list(texts))
        order = sorted(range(len(encoded)), key=lambda place: len(encoded[place].ids))
        for start in range(0, len(order), batch):
            places = order[start : start + batch]
            lengths = [len(encoded[place].ids) for place in places]
            ids = np.zeros((len(places), max(lengths)), dtype=np.int64)
            mask = np.zeros_like(ids)
            for row, place in enumerate(places):
                ids[row, : lengths[row]], mask[row, : lengths[row]] = encoded[place].ids, 1
            yield places, lengths, mask, self.session.run(None, {"input_ids": ids, "attention_mask": mask})[0]


if __name__ == "__main__":
    import sys

    model = MiniLM(sys.argv[1])
    started = time.perf_counter()
    print(model.embed(["A pump moves water from the lower reservoir to the upper one."])[0][:4], f"{(time.perf_counter() - started) * 1e3:.1f} ms")
