"""The weights of a loaded encoder by their published names, to look at and to compute with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gte_np.architectures.config import BertConfig
from gte_np.architectures.tensors import LAYER, expected_shapes, layer_prefix
from gte_np.architectures.weights import open_tensors
from gte_np.arguments import check_integer
from gte_np.checkpoint.source import LoadedFiles
from gte_np.checkpoint.weight_files import find_weights


class NamedWeights(Mapping[str, NDArray[np.float32]]):
    """Published name -> float32 array, widened from what is stored. A linear layer's weight is (out, in).

    The encoder keeps weights in the form that it multiplies with, so each array is read from the model's files when
    it is asked for. It is a copy that cannot be written to, since that would not change the model; keep it in a
    variable if it is used often. Weights that were saved in bfloat16 or int8 are what these encode; a model that was
    only loaded in such a dtype has its weights here as published, before rounding.

    Raises CheckpointError if the files are no longer those that the model was loaded from.
    """

    def __init__(self, files: LoadedFiles, config: BertConfig, pooler: bool) -> None:
        self._files = files
        self._config = config
        self._pooler = pooler

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of each array; nothing is read."""
        return expected_shapes(self._config, self._pooler)

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """One array. Raises KeyError for a name that the model does not have."""
        if name not in self.shapes:
            raise KeyError(name)
        return self._read([name])[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def __contains__(self, name: object) -> bool:
        return name in self.shapes

    def layer(self, number: int) -> dict[str, NDArray[np.float32]]:
        """The weights of one layer by their names in it, as `gte_np.reference.encoder.encoder_layer` takes them.

        Layers count from 0. Raises TypeError for anything but an int, InputError for a layer that is not there.
        """
        last = self._config.num_hidden_layers - 1
        prefix = layer_prefix(check_integer("the number of a layer", number, least=0, most=last))
        arrays = self._read([prefix + name for name in LAYER])
        return {name.removeprefix(prefix): array for name, array in arrays.items()}

    def _read(self, names: list[str]) -> dict[str, NDArray[np.float32]]:
        tensors = open_tensors(find_weights(self._files.source.folder), self._config.architecture)
        self._files.check_unchanged()  # after they were opened: another file that takes their place would not matter
        arrays = {name: tensors[name].to_float32() for name in names}
        for array in arrays.values():
            array.flags.writeable = False
        return arrays
