"""A linear layer, and the weights by their published names."""

from __future__ import annotations

from collections.abc import Mapping

from gte_np.encoder import FloatArray

Weights = Mapping[str, FloatArray]  # published name -> values; see gte_np.checkpoint.names


def linear(x: FloatArray, weights: Weights, name: str) -> FloatArray:
    """x W^T + b: (N, in) -> (N, out), as torch.nn.Linear, which stores W as (out, in)."""
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
