"""A linear layer, and the weights by their published names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gte_np.architectures.tensors import MATRICES, WORDS
from gte_np.encoder_interface import FloatArray
from gte_np.formats import FormattedMatrix, WeightFormat
from gte_np.formats.stored_tensor import StoredTensor

# Published name, as in gte_np.architectures.tensors -> values. With dtype "float32" each is an array, and that is all
# to know at first. With "bfloat16" or "int8", the matrix of a linear layer is a function of x instead, which
# multiplies with fewer bits: gte_np.formats has them.
Weights = Mapping[str, Any]


def linear(x: FloatArray, weights: Weights, name: str) -> FloatArray:
    """`x @ weight.transpose + bias`: (N, in) -> (N, out). As in torch.nn.Linear, the weight is (out, in).

    >>> weights = {"n.weight": np.array([[1, 2], [3, 4], [5, 6]]), "n.bias": np.array([0, 0, 1])}
    >>> linear(np.array([[10, 1]]), weights, "n").tolist()
    [[12, 34, 57]]
    """
    weight = weights[f"{name}.weight"]
    product: FloatArray = weight(x) if callable(weight) else x @ weight.T  # (N, in) @ (in, out) -> (N, out)
    return product + weights[f"{name}.bias"]  # (N, out) + (out,) -> (N, out)


def prepare_weights(
    tensors: Mapping[str, StoredTensor | FormattedMatrix], weight_format: WeightFormat
) -> dict[str, Any]:
    """The tensors by name, as `linear` wants them: float32 arrays, or what multiplies in a format.

    All of it is copied: the file may change afterwards.
    """
    weights = {}
    for name, tensor in tensors.items():
        weights[name] = _prepare_weight(name, tensor, weight_format)
        if not isinstance(tensor, np.ndarray):
            tensor.forget_pages()  # else a mapped file would be in memory beside its copy
    return weights


def _prepare_weight(name: str, tensor: Any, weight_format: WeightFormat) -> Any:
    if isinstance(tensor, np.ndarray):
        return tensor
    if name not in MATRICES:
        return tensor.to_float32()
    if name == WORDS or weight_format.dtype == "float32":
        return weight_format.of(tensor).to_float32()
    return weight_format.multiplier(weight_format.of(tensor))
