"""What an architecture is: all in which encoders of BERT's shape differ from each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gte_np.token_batch import TokenArray, TokenBatch


@dataclass(frozen=True)
class Architecture:
    """One architecture, by the `model_type` of config.json.

    `implemented` is what a key of config.json must say for the encoder to be the right one; the first value is meant
    where the key is absent. `position_ids` gives the row of the position table for each token, (N,).

    Tensors have the names of `gte_np.architectures.tensors`, but for `prefix`, which they may carry, and for
    `renamed`, parts of names that old files call something else. What begins with one of `ignored` is not needed.
    """

    model_type: str
    implemented: Mapping[str, tuple[object, ...]]
    position_ids: Callable[[TokenBatch], TokenArray]
    prefix: str
    renamed: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    def canonical_name(self, name: str) -> str:
        """The name of a tensor as the table has it."""
        name = name.removeprefix(self.prefix)
        for old, new in self.renamed.items():
            name = name.replace(old, new)
        return name

    def is_ignored(self, name: str) -> bool:
        """Whether an encoder needs nothing of the tensor that has this canonical name."""
        return name.startswith(self.ignored)
