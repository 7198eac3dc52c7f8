"""Weight formats: how matrices are stored, packed and multiplied. See `weight_format` for what makes one.

To add one, write a module with a `WeightFormat` and add it to `FORMATS`.
"""

from __future__ import annotations

from gte_np.formats.bfloat16 import BFLOAT16
from gte_np.formats.float_formats import FLOAT16, FLOAT32, WIDENED_BFLOAT16
from gte_np.formats.int8 import INT8
from gte_np.formats.weight_format import FormattedMatrix, ProductStep, WeightFormat

__all__ = ["FORMATS", "FormattedMatrix", "ProductStep", "WeightFormat", "choose_format", "dtypes"]

FORMATS: list[WeightFormat] = [FLOAT32, FLOAT16, WIDENED_BFLOAT16, BFLOAT16, INT8]


def dtypes() -> list[str]:
    """What a user may ask for."""
    return list(dict.fromkeys(weight_format.dtype for weight_format in FORMATS))


def choose_format(dtype: str, stored: str) -> WeightFormat:
    """The format for a dtype: that which takes weights as they are `stored`, if there is one, else the first."""
    formats = [weight_format for weight_format in FORMATS if weight_format.dtype == dtype]
    return next((weight_format for weight_format in formats if weight_format.stored == stored), formats[0])
