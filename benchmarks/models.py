"""Checkpoints of the exact shapes of the GTE models, with random float16 weights, and what each engine makes of them.

Speed hardly depends on what the weights are. `python -m benchmarks.models NAME FOLDER` writes a checkpoint, its ONNX
graph, fused by onnxruntime's BERT optimiser, its OpenVINO graph and its CTranslate2 folder.
"""

from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path

from scripts.fetch_minilm import FOLDER as MINILM
from tests.checkpoints import copy_chinese_tokenizer, write_config, write_modules, write_weights

# D, L, H, F, rows of the word table, pooling.
SHAPES = {
    "gte-small": (384, 12, 12, 1536, 30522, "mean"),
    "gte-base-zh": (768, 12, 12, 3072, 21128, "cls"),
    "gte-large-zh": (1024, 24, 16, 4096, 21128, "cls"),
}
OTHER_SHAPES = {"gte-small-zh": (512, 6, 8, 2048, 21128, "cls")}  # that `compare` has no use for


def prepare(name: str, folder: Path) -> None:
    """Write the checkpoint and every engine's files, unless they are there."""
    if not (folder / "ready").exists():
        if name == MINILM.name:
            shutil.copytree(MINILM, folder, dirs_exist_ok=True)
        else:
            write_checkpoint(name, folder)
        export_onnx(folder)
        export_openvino(folder)
        export_ctranslate2(folder)
        (folder / "ready").touch()
    quantize_onnx(folder)


def ensure_checkpoint(name: str, folder: Path) -> None:
    """Write the checkpoint alone, unless it is there."""
    if not (folder / "config.json").exists():
        write_checkpoint(name, folder)


def write_checkpoint(name: str, folder: Path) -> None:
    """Write a folder as the hub has it."""
    hidden, layers, heads, inner, rows, pooling = (SHAPES | OTHER_SHAPES)[name]
    write_config(
        folder,
        vocab_size=rows,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=512,
        torch_dtype="float16",
    )
    write_weights(folder, dtype="float16", pooler=False)
    if name.endswith("zh"):
        copy_chinese_tokenizer(folder, do_lower_case=True)
    else:  # the vocabulary of bert-base-uncased, which gte-small has too
        for file in ("vocab.txt", "tokenizer_config.json"):
            shutil.copy(MINILM / file, folder / file)
    write_modules(folder, {"pooling_mode": pooling, "embedding_dimension": hidden}, "Normalize")


def export_onnx(folder: Path) -> None:
    """Write model.onnx, its fused form, in float32."""
    import torch
    from onnxruntime.transformers import optimizer
    from transformers import BertModel

    bert = BertModel.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", add_pooling_layer=False
    ).eval()

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = bert

        def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
            return self.bert(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state

    inputs = ["input_ids", "attention_mask", "token_type_ids"]
    example = (torch.ones(2, 9, dtype=torch.long),) * 3
    axes = {axis: {0: "batch", 1: "tokens"} for axis in [*inputs, "last_hidden_state"]}
    plain = folder / "plain.onnx"
    torch.onnx.export(
        Encoder(), example, str(plain), input_names=inputs, output_names=["last_hidden_state"],
        dynamic_axes=axes, dynamo=False, opset_version=17,
    )  # fmt: skip
    heads, hidden = bert.config.num_attention_heads, bert.config.hidden_size
    fused = optimizer.optimize_model(str(plain), model_type="bert", num_heads=heads, hidden_size=hidden, opt_level=0)
    fused.save_model_to_file(str(folder / "model.onnx"))


def quantize_onnx(folder: Path) -> None:
    """Write model_int8.onnx, unless it is there: model.onnx after onnxruntime's dynamic quantisation."""
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if not (folder / "model_int8.onnx").exists():
        quantize_dynamic(
            folder / "model.onnx",
            folder / "model_int8.onnx",
            weight_type=QuantType.QInt8,
            per_channel=True,
            extra_options={"DefaultTensorType": TensorProto.FLOAT},  # fused operators tell no types
        )


def export_openvino(folder: Path) -> None:
    """Write openvino.xml from the plain ONNX graph: OpenVINO fuses it by itself."""
    import openvino

    openvino.save_model(
        openvino.convert_model(folder / "plain.onnx"), folder / "openvino.xml", compress_to_fp16=False
    )
    for file in folder.glob("plain.onnx*"):
        file.unlink()


def export_ctranslate2(folder: Path) -> None:
    """Write the folder ctranslate2, in float32."""
    from ctranslate2.converters import TransformersConverter
    from transformers import BertConfig

    BertConfig.position_embedding_type = "absolute"  # the converter asks for what transformers 5 no longer has
    TransformersConverter(str(folder), load_as_float16=False).convert(str(folder / "ctranslate2"), force=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    prepare(sys.argv[1], Path(sys.argv[2]))
