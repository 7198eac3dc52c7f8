"""A linear layer, and the weights by their published names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gte_np.checkpoint.names import MATRICES, WORDS
from gte_np.checkpoint.stored_tensor import StoredTensor
from gte_np.encoder import FloatArray
from gte_np.formats import FormattedMatrix, WeightFormat

# Published name -> float32 values, see gte_np.checkpoint.names. With dtype "bfloat16" or "int8", the matrix of a
# linear layer is instead a function x -> x W^T, see gte_np.formats.
Weights = Mapping[str, Any]


def linear(x: FloatArray, weights: Weights, name: str) -> FloatArray:
    """x W^T + b: (N, in) -> (N, out), as torch.nn.Linear, which stores W as (out, in)."""
    weight = weights[f"{name}.weight"]
    product: FloatArray = weight(x) if callable(weight) else x @ weight.T  # (N, in) -> (N, out)
    return product + weights[f"{name}.bias"]


def weights_of(tensors: Mapping[str, StoredTensor | FormattedMatrix], weight_format: WeightFormat) -> dict[str, Any]:
    """What `linear` and the embeddings read: float32 arrays of their own, and matrices as the format multiplies."""
    return {name: _weight_of(name, tensor, weight_format) for name, tensor in tensors.items()}


def _weight_of(name: str, tensor: Any, weight_format: WeightFormat) -> Any:
    if isinstance(tensor, np.ndarray):
        return tensor
    if name not in MATRICES:
        return np.array(tensor.to_float32())
    if name == WORDS or weight_format.dtype == "float32":
        return np.array(weight_format.of(tensor).to_float32())
    return weight_format.multiplier(weight_format.of(tensor))
