"""The choice of a backend: "numpy" is `gte_np.reference`, "auto" the best one there is."""

from __future__ import annotations

from gte_np.arguments import check_choice
from gte_np.checkpoint.config import BertConfig
from gte_np.checkpoint.weights import BertWeights
from gte_np.encoder import Encoder
from gte_np.errors import MissingDependencyError
from gte_np.reference import ReferenceEncoder

BACKENDS = ("auto", "numpy", "numba")


def check_backend(backend: str) -> None:
    """Raise InputError for an unknown backend, and MissingDependencyError for one that is not there."""
    if check_choice("backend", backend, BACKENDS) == "numba":
        raise MissingDependencyError("backend 'numba' is not part of this version; use 'numpy' or 'auto'.")


def make_encoder(backend: str, config: BertConfig, weights: BertWeights) -> Encoder:
    """Return the encoder of the backend "auto" or "numpy"; errors as in `check_backend`."""
    check_backend(backend)
    return ReferenceEncoder(config, weights)
