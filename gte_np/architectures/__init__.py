"""Architectures: which encoders there are. See `architecture` for what makes one.

To add one, write a module with an `Architecture` and add it to `ARCHITECTURES`.
"""

from __future__ import annotations

from gte_np.architectures.architecture import Architecture
from gte_np.architectures.bert import BERT

__all__ = ["ARCHITECTURES", "Architecture"]

# By the model_type of config.json.
ARCHITECTURES = {architecture.model_type: architecture for architecture in (BERT,)}
