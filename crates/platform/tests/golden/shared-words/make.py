"""Writes the files of the smallest cross-encoder there is, for tests: python make.py (packages onnx and tokenizers).

It has the inputs and the output of a real one (BERT's three inputs, one logit a pair) and no weights: the logit is
8 × the share of the question's words that the passage holds, less 4. Words outside the vocabulary count as none.
"""

import json
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

HERE = pathlib.Path(__file__).parent
MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = "a after all are at before boat bridge by calm closed crane dues ferry fog for from gate harbour ice in is it leaves light lock long mast night no north of on open pays pier pilot port quay rope sail sea seal ship south speed storm tariff the tide to tower tug vessel water weather wind winter".split()


def constant(name, value, kind):
    return numpy_helper.from_array(np.array(value, dtype=kind), name)


def graph():
    nodes = []
    node = lambda operator, inputs, output, **attributes: nodes.append(helper.make_node(operator, inputs, [output], **attributes))
    node("Greater", ["input_ids", "last_mark"], "is_word")
    node("Equal", ["token_type_ids", "zero"], "is_first")
    node("Not", ["is_first"], "is_second")
    node("And", ["is_word", "is_first"], "asked")
    node("And", ["is_word", "is_second"], "told")
    node("Unsqueeze", ["input_ids", "last"], "column")
    node("Unsqueeze", ["input_ids", "middle"], "row")
    node("Equal", ["column", "row"], "same")
    node("Unsqueeze", ["told", "middle"], "told_row")
    node("And", ["same", "told_row"], "held_by")
    node("Cast", ["held_by"], "held_number", to=TensorProto.FLOAT)
    node("ReduceMax", ["held_number"], "held", axes=[2], keepdims=0)
    node("Cast", ["asked"], "asked_number", to=TensorProto.FLOAT)
    node("Mul", ["held", "asked_number"], "shared")
    node("ReduceSum", ["shared", "one_axis"], "shared_sum", keepdims=1)
    node("ReduceSum", ["asked_number", "one_axis"], "asked_sum", keepdims=1)
    node("Max", ["asked_sum", "one"], "asked_count")
    node("Div", ["shared_sum", "asked_count"], "share")
    node("Mul", ["share", "eight"], "scaled")
    node("Sub", ["scaled", "four"], "logits")
    constants = [
        constant("last_mark", len(MARKS) - 1, np.int64),
        constant("zero", 0, np.int64),
        constant("last", [2], np.int64),
        constant("middle", [1], np.int64),
        constant("one_axis", [1], np.int64),
        constant("one", 1, np.float32),
        constant("eight", 8, np.float32),
        constant("four", 4, np.float32),
    ]
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in names]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])]
    made = helper.make_graph(nodes, "shared-words", inputs, outputs, constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def tokenizer():
    words = {word: place for place, word in enumerate(MARKS + WORDS)}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    marks = [("[CLS]", words["[CLS]"]), ("[SEP]", words["[SEP]"])]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=marks
    )
    return made


if __name__ == "__main__":
    model = graph()
    onnx.checker.check_model(model)
    (HERE / "model.onnx").write_bytes(model.SerializeToString())
    tokenizer().save(str(HERE / "tokenizer.json"))
    marks = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    for name, content in (
        ("config.json", {"pad_token_id": 0}),
        ("special_tokens_map.json", marks),
        ("tokenizer_config.json", {"model_max_length": 128, **marks}),
    ):
        (HERE / name).write_text(json.dumps(content, indent=1) + "\n")
