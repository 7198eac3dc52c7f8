"""The choice of a backend: "numpy" is `gte_np.reference`, "numba" `gte_np.kernels`, "auto" the best one there is.

The kernels are called "numba" by what compiles them, at run time or when the package was built.
"""

from __future__ import annotations

import logging

from gte_np.architectures.config import BertConfig
from gte_np.architectures.weights import BertWeights
from gte_np.arguments import check_choice
from gte_np.encoder_interface import Encoder
from gte_np.errors import BackendError, MissingDependencyError
from gte_np.formats import WeightFormat
from gte_np.kernels.runtime.kernel_encoder import KernelEncoder
from gte_np.kernels.runtime.kernel_functions import chosen_target
from gte_np.reference import ReferenceEncoder

logger = logging.getLogger("gte_np")

BACKENDS = ("auto", "numpy", "numba")


def check_backend(backend: str) -> None:
    """Raise InputError for an unknown backend, BackendError or MissingDependencyError for one that cannot be had."""
    if check_choice("backend", backend, BACKENDS) == "numba":
        chosen_target()


def backend_of(encoder: Encoder) -> str:
    """The backend that gave an encoder: "numpy" or "numba"."""
    return "numpy" if isinstance(encoder, ReferenceEncoder) else "numba"


def make_encoder(
    backend: str, config: BertConfig, weights: BertWeights, weight_format: WeightFormat, threads: int | None
) -> Encoder:
    """Return an encoder of a backend, with linear layers in a format; errors as in `check_backend`.

    Raises BackendError for "numba" if the kernels cannot be compiled or loaded; "auto" then takes NumPy.
    """
    check_backend(backend)
    if backend != "numpy":
        try:
            return KernelEncoder(config, weights, weight_format, threads)
        except (BackendError, MissingDependencyError) as error:
            if backend == "numba":
                raise
            logger.warning("%s The slower NumPy encoder is used.", error)
    if threads is not None:
        logger.warning("threads has no effect on NumPy: set OPENBLAS_NUM_THREADS before it is imported.")
    return ReferenceEncoder(config, weights, weight_format)
