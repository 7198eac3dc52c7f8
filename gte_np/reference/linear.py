"""A linear layer, and the weights by their published names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gte_np.encoder import FloatArray

# Published name -> values, see gte_np.checkpoint.names; or, with dtype "bfloat16" or "int8", a matrix of
# gte_np.reference.low_precision.
Weights = Mapping[str, Any]


def linear(x: FloatArray, weights: Weights, name: str) -> FloatArray:
    """x W^T + b: (N, in) -> (N, out), as torch.nn.Linear, which stores W as (out, in)."""
    weight = weights[f"{name}.weight"]
    product: FloatArray = (
        x @ weight.T if isinstance(weight, np.ndarray) else weight.multiply(x)
    )  # (N, in) -> (N, out)
    return product + weights[f"{name}.bias"]
