"""The engines that are compared, each behind the same two calls, at the settings that suit it best.

Engines import what they need when they are made: each runs in a process of its own.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Ids = Sequence[Sequence[int]]


class Engine(ABC):
    """A loaded model; vectors are (B, D) float32 of length 1."""

    @abstractmethod
    def __init__(self, folder: Path, threads: int) -> None:
        """Load the model of a folder that `benchmarks.models` wrote."""

    @abstractmethod
    def encode_ids(self, ids: Ids, batch_size: int) -> FloatArray:
        """The vectors of token ids."""

    @abstractmethod
    def encode_texts(self, texts: list[str], batch_size: int) -> FloatArray:
        """The vectors of texts."""


class GteNp(Engine):
    """Our own kernels."""

    backend = "numba"
    dtype = "float32"

    def __init__(self, folder: Path, threads: int) -> None:
        from gte_np import EmbeddingModel

        self.model = EmbeddingModel(folder, backend=self.backend, dtype=self.dtype, threads=threads)

    def encode_ids(self, ids: Ids, batch_size: int) -> FloatArray:
        """As `EmbeddingModel.encode` does after its tokenizer."""
        from gte_np.batching import make_batches
        from gte_np.token_batch import TokenBatch

        arrays = [np.asarray(text, np.int32) for text in ids]
        vectors = np.empty((len(ids), self.model.get_sentence_embedding_dimension()), np.float32)
        for indexes in make_batches(np.array([len(text) for text in ids]), batch_size):
            batch = TokenBatch.from_ids([arrays[index] for index in indexes])
            vectors[indexes] = self.model.encode_tokens(batch)
        return vectors

    def encode_texts(self, texts: list[str], batch_size: int) -> FloatArray:
        """All of `encode`."""
        return self.model.encode(texts, batch_size=batch_size, show_progress_bar=False)


class GteNpBfloat16(GteNp):
    """The same with linear layers in bfloat16."""

    dtype = "bfloat16"


class GteNpInt8(GteNp):
    """The same with linear layers in int8."""

    dtype = "int8"


class GteNpReference(GteNp):
    """Our own reference."""

    backend = "numpy"

    def __init__(self, folder: Path, threads: int) -> None:
        os.environ["OPENBLAS_NUM_THREADS"] = str(threads)
        from gte_np import EmbeddingModel

        self.model = EmbeddingModel(folder, backend=self.backend)


class Padded(Engine):
    """An engine that takes padded batches. Texts are sorted by length, so that little is padded."""

    def __init__(self, folder: Path, threads: int) -> None:
        from tokenizers import BertWordPieceTokenizer

        from gte_np.sentence_config import read_sentence_config

        self.mean = read_sentence_config(folder).pooling_modes == ("mean",)
        self.tokenizer = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
        self.tokenizer.enable_truncation(512)
        self.forward = self.load(folder, threads)

    @abstractmethod
    def load(self, folder: Path, threads: int) -> Callable[..., FloatArray]:
        """The function from input_ids and attention_mask, (B, T) int64, to hidden states (B, T, D)."""

    def encode_ids(self, ids: Ids, batch_size: int) -> FloatArray:
        """Padded batch by padded batch."""
        vectors: list[Any] = [None] * len(ids)
        for indexes, input_ids, mask in padded_batches(ids, batch_size):
            pooled = self.pool(self.forward(input_ids, mask), mask)
            pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
            for index, vector in zip(indexes, pooled, strict=True):
                vectors[index] = vector
        return np.stack(vectors)

    def encode_texts(self, texts: list[str], batch_size: int) -> FloatArray:
        """With the tokenizers library."""
        return self.encode_ids([encoding.ids for encoding in self.tokenizer.encode_batch(texts)], batch_size)

    def pool(self, hidden: FloatArray, mask: NDArray[np.int64]) -> FloatArray:
        """(B, T, D) -> (B, D)."""
        if not self.mean:
            return hidden[:, 0].copy()
        weights = (mask / mask.sum(axis=1, keepdims=True)).astype(np.float32)
        return np.einsum("bt,btd->bd", weights, hidden)


def padded_batches(ids: Ids, batch_size: int) -> Iterator[tuple[list[int], NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the numbers of texts, their ids and their mask, longest texts first."""
    order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
    for start in range(0, len(order), batch_size):
        indexes = order[start : start + batch_size]
        mask = np.zeros((len(indexes), len(ids[indexes[0]])), np.int64)
        input_ids = np.zeros_like(mask)
        for row, index in enumerate(indexes):
            input_ids[row, : len(ids[index])] = ids[index]
            mask[row, : len(ids[index])] = 1
        yield indexes, input_ids, mask


class Transformers(Padded):
    """transformers on torch, float32, with its fastest attention for a CPU."""

    dtype = "float32"

    def load(self, folder: Path, threads: int) -> Callable[..., FloatArray]:
        """BertModel without gradients."""
        import torch
        from transformers import BertModel

        torch.set_num_threads(threads)
        model = BertModel.from_pretrained(
            folder, dtype=getattr(torch, self.dtype), attn_implementation="sdpa", add_pooling_layer=False
        ).eval()

        def forward(input_ids: NDArray[np.int64], mask: NDArray[np.int64]) -> FloatArray:
            with torch.inference_mode():
                output = model(input_ids=torch.from_numpy(input_ids), attention_mask=torch.from_numpy(mask))
            return output.last_hidden_state.float().numpy()

        return forward


class TransformersBfloat16(Transformers):
    """The same in bfloat16."""

    dtype = "bfloat16"


class SentenceTransformers(Engine):
    """sentence-transformers, float32."""

    def __init__(self, folder: Path, threads: int) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self.model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})

    def encode_ids(self, ids: Ids, batch_size: int) -> FloatArray:
        """What `encode` does after its tokenizer."""
        import torch

        vectors: list[Any] = [None] * len(ids)
        for indexes, input_ids, mask in padded_batches(ids, batch_size):
            features = {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(mask)}
            with torch.inference_mode():
                output = self.model(features)["sentence_embedding"].numpy()
            for index, vector in zip(indexes, output, strict=True):
                vectors[index] = vector
        return np.stack(vectors)

    def encode_texts(self, texts: list[str], batch_size: int) -> FloatArray:
        """All of `encode`."""
        return self.model.encode(texts, batch_size=batch_size, show_progress_bar=False)


class OnnxRuntime(Padded):
    """onnxruntime, float32, on the graph that its BERT optimiser fused."""

    file = "model.onnx"

    def load(self, folder: Path, threads: int) -> Callable[..., FloatArray]:
        """A session with all optimisations."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(folder / self.file, options, providers=["CPUExecutionProvider"])
        names = {value.name for value in session.get_inputs()}

        def forward(input_ids: NDArray[np.int64], mask: NDArray[np.int64]) -> FloatArray:
            feeds = {"input_ids": input_ids, "attention_mask": mask, "token_type_ids": np.zeros_like(mask)}
            return session.run(None, {name: value for name, value in feeds.items() if name in names})[0]

        return forward


class OnnxRuntimeInt8(OnnxRuntime):
    """The same after its dynamic quantisation, with a scale for each column of the weights."""

    file = "model_int8.onnx"


class OpenVino(Padded):
    """OpenVINO, float32, for one request at a time."""

    precision = "f32"

    def load(self, folder: Path, threads: int) -> Callable[..., FloatArray]:
        """A compiled model of dynamic shapes."""
        import openvino

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": self.precision,
            "INFERENCE_NUM_THREADS": threads,
        }
        request = openvino.Core().compile_model(folder / "openvino.xml", "CPU", settings).create_infer_request()

        def forward(input_ids: NDArray[np.int64], mask: NDArray[np.int64]) -> FloatArray:
            inputs = {"input_ids": input_ids, "attention_mask": mask, "token_type_ids": np.zeros_like(mask)}
            return request.infer(inputs, share_inputs=True, share_outputs=True)[0]

        return forward


class OpenVinoBfloat16(OpenVino):
    """The same in bfloat16."""

    precision = "bf16"


class CTranslate2(Padded):
    """CTranslate2, float32."""

    compute_type = "float32"

    def load(self, folder: Path, threads: int) -> Callable[..., FloatArray]:
        """An encoder; it takes lengths instead of a mask, and does not compute what is padded."""
        import ctranslate2

        encoder = ctranslate2.Encoder(
            str(folder / "ctranslate2"),
            device="cpu",
            compute_type=self.compute_type,
            intra_threads=threads,
            inter_threads=1,
        )

        def forward(input_ids: NDArray[np.int64], mask: NDArray[np.int64]) -> FloatArray:
            ids = ctranslate2.StorageView.from_array(input_ids.astype(np.int32))
            lengths = ctranslate2.StorageView.from_array(mask.sum(axis=1).astype(np.int32))
            return np.array(encoder.forward_batch(ids, lengths).last_hidden_state)

        return forward


class CTranslate2Int8(CTranslate2):
    """The same in int8."""

    compute_type = "int8"


ENGINES: dict[str, type[Engine]] = {
    "gte_np": GteNp,
    "gte_np (NumPy)": GteNpReference,
    "transformers": Transformers,
    "sentence-transformers": SentenceTransformers,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "ctranslate2": CTranslate2,
    "gte_np bfloat16": GteNpBfloat16,
    "transformers bfloat16": TransformersBfloat16,
    "openvino bfloat16": OpenVinoBfloat16,
    "gte_np int8": GteNpInt8,
    "onnxruntime int8": OnnxRuntimeInt8,
    "ctranslate2 int8": CTranslate2Int8,
}
FEWER_BITS = tuple(name for name in ENGINES if name.endswith(("bfloat16", "int8")))

# What has to be installed for each, besides what it requires itself.
DISTRIBUTIONS = {
    "gte_np": ["gte_np"],
    "transformers": ["transformers", "torch"],
    "sentence-transformers": ["sentence-transformers"],
    "onnxruntime": ["onnxruntime", "tokenizers"],
    "openvino": ["openvino", "tokenizers"],
    "ctranslate2": ["ctranslate2", "tokenizers"],
}
