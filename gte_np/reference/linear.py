"""A linear layer, and the weights by their published names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gte_np.encoder import FloatArray

# Published name, as in gte_np.checkpoint.names -> values. With dtype "float32" each is an array, and that is all to
# know at first. With "bfloat16" or "int8", the matrices of linear layers are objects that can do one thing,
# `multiply`, with fewer bits: gte_np.reference.low_precision has them.
Weights = Mapping[str, Any]


def linear(x: FloatArray, weights: Weights, name: str) -> FloatArray:
    """`x @ weight.transpose + bias`: (N, in) -> (N, out). As in torch.nn.Linear, the weight is (out, in)."""
    weight = weights[f"{name}.weight"]
    product: FloatArray = (
        x @ weight.T if isinstance(weight, np.ndarray) else weight.multiply(x)
    )  # (N, in) @ (in, out) -> (N, out)
    return product + weights[f"{name}.bias"]  # (N, out) + (out,) -> (N, out)
