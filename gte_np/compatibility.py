"""What sentence-transformers' users write by habit: its arguments and methods, where NumPy on a CPU has others.

The tables below have the arguments that only sentence-transformers has. For each they say which values change nothing
here, and so are accepted, and what to write instead of any other. DIFFERENCES.md shows calls of both, side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np

from gte_np.errors import InputError

ModelT = TypeVar("ModelT", bound="ModuleMethods")
MethodT = TypeVar("MethodT", bound=Callable[..., Any])
Options = Mapping[str, Any]


class Pool:
    """What `start_multi_process_pool` gives: no processes, since every call is computed by threads."""


class Values(NamedTuple):
    """Values of an argument that change nothing here: a test of a value, and their name in a message."""

    has: Callable[[Any], bool]
    name: str


def _is_cpu(value: object) -> bool:
    """Whether it is "cpu" or torch's device of that name, or a list of these."""
    devices = value if isinstance(value, list | tuple) else [value]
    return all(str(device).partition(":")[0] == "cpu" for device in devices)


ANYTHING = Values(lambda value: True, "anything")
NONE = Values(lambda value: value is None, "None")
TRUE = Values(lambda value: isinstance(value, bool | np.bool_) and bool(value), "True")
FALSE = Values(lambda value: isinstance(value, bool | np.bool_) and not value, "False")
EMPTY = Values(lambda value: value is None or value == {}, "an empty dict")
CPU = Values(lambda value: value is None or _is_cpu(value), "'cpu'")
POOL = Values(lambda value: value is None or isinstance(value, Pool), "what start_multi_process_pool gives")


class Foreign(NamedTuple):
    """An argument that only sentence-transformers has, and what to write instead of a value that is not accepted."""

    accepted: Values
    instead: str = ""

    def check(self, name: str, value: object) -> None:
        """Raise InputError for a value that is not accepted."""
        if not self.accepted.has(value):
            raise InputError(
                f"expected {name} to be {self.accepted.name} or left out, got {value!r:.80}: {self.instead}."
            )


class Habits(NamedTuple):
    """Arguments of sentence-transformers that have another name here, and those that only it has."""

    renamed: Mapping[str, str]
    foreign: Mapping[str, Foreign]

    def own(self, options: Options) -> dict[str, Any]:
        """The options by their names here, without what changes nothing.

        Of an option under both names, the name here counts. Raises InputError for values that cannot be had.
        """
        for name in options.keys() & self.foreign:
            self.foreign[name].check(name, options[name])
        renamed = {self.renamed[name]: options[name] for name in self.renamed if name in options}
        return renamed | {
            name: value for name, value in options.items() if name not in self.foreign and name not in self.renamed
        }


_THREADS = "gte_np computes on the CPU, in as many threads as the model was given by threads=, so leave it out"

ENCODE = Habits(
    {"inputs": "sentences"},
    {
        "convert_to_numpy": Foreign(
            TRUE, "for a list of tensors, write [torch.from_numpy(vector) for vector in model.encode(texts)]"
        ),
        "convert_to_tensor": Foreign(FALSE, "for a tensor, write torch.from_numpy(model.encode(texts))"),
        "device": Foreign(CPU, _THREADS),
        "pool": Foreign(POOL, _THREADS),
        "chunk_size": Foreign(ANYTHING),
        "task": Foreign(ANYTHING),  # for a Router module, which no model here has
        "processing_kwargs": Foreign(EMPTY, "to cut texts earlier, set model.max_seq_length"),
    },
)

_NO_CARD = "no model card is written, so leave it out and write README.md yourself"

SAVE = Habits(
    {"path": "folder"},
    {
        "model_name": Foreign(NONE, _NO_CARD),
        "create_model_card": Foreign(FALSE, _NO_CARD),
        "train_datasets": Foreign(NONE, _NO_CARD),
        "safe_serialization": Foreign(TRUE, "weights are always written as safetensors, so leave it out"),
    },
)

LOAD = Habits(
    {"model_name_or_path": "name_or_path", "cache_folder": "cache_dir", "use_auth_token": "token"},
    {
        "modules": Foreign(NONE, "give the folder of a saved model, which names its modules"),
        "device": Foreign(CPU, _THREADS),
        "trust_remote_code": Foreign(FALSE, "no code of a repository is ever run, so leave it out"),
        "config_kwargs": Foreign(EMPTY, "change config.json in a copy of the model's folder"),
        "model_card_data": Foreign(NONE, _NO_CARD),
    },
)

# The arguments that are dicts of arguments.
MODEL_KWARGS = Habits(
    {"torch_dtype": "dtype"},
    {
        "attn_implementation": Foreign(ANYTHING),
        "use_safetensors": Foreign(ANYTHING),
        "low_cpu_mem_usage": Foreign(ANYTHING),
        "device_map": Foreign(CPU, _THREADS),
        "file_name": Foreign(NONE, "the weights are those of model.safetensors or pytorch_model.bin"),
    },
)
PROCESSOR_KWARGS = Habits(
    {},
    {
        "use_fast": Foreign(ANYTHING),
        "padding_side": Foreign(ANYTHING),  # nothing is padded
        "model_max_length": Foreign(NONE, "set model.max_seq_length after loading"),
    },
)
_DICTS = {"model_kwargs": MODEL_KWARGS, "tokenizer_kwargs": PROCESSOR_KWARGS, "processor_kwargs": PROCESSOR_KWARGS}


def load_options(options: Options) -> dict[str, Any]:
    """`LOAD.own`, with what dicts of arguments hold."""
    own = LOAD.own(options)
    inner: dict[str, Any] = {}
    for name, habits in _DICTS.items():
        inner |= _inner_options(name, own.pop(name, None), habits)
    if "dtype" in inner:  # torch's dtype, or its name
        dtype = str(inner["dtype"]).removeprefix("torch.")
        inner["dtype"] = None if dtype in ("auto", "None") else dtype
    return inner | own


def _inner_options(name: str, value: Any, habits: Habits) -> dict[str, Any]:
    if not isinstance(value, Mapping | None):
        raise TypeError(f"expected {name} to be a dict, got {type(value).__name__}.")
    own = habits.own(value or {})
    known = {*habits.foreign, *habits.renamed, *habits.renamed.values()}
    for unknown in own.keys() - habits.renamed.values():
        raise InputError(
            f"expected {name} with any of {', '.join(sorted(known))}, got {unknown!r:.80}: leave it out."
        )
    return own


def translated(own: Callable[[Options], dict[str, Any]]) -> Callable[[MethodT], MethodT]:
    """A decorator for a method that gets only its own arguments of those that it is called with."""

    def decorate(method: MethodT) -> MethodT:
        @wraps(method)
        def call(*args: Any, **options: Any) -> Any:
            return method(*args, **own(options))

        return cast("MethodT", call)

    return decorate


class ModuleMethods:
    """What a model of sentence-transformers is able to do because it is a module of torch."""

    @property
    def device(self) -> str:
        """Where vectors are computed: "cpu"."""
        return "cpu"

    def to(self: ModelT, device: object = None) -> ModelT:
        """The model itself. Raises InputError for another device than "cpu", and for a dtype."""
        Foreign(CPU, "gte_np computes on the CPU; another precision is dtype= of EmbeddingModel").check(
            "device", device
        )
        return self

    def cpu(self: ModelT) -> ModelT:
        """The model itself."""
        return self

    def eval(self: ModelT) -> ModelT:
        """The model itself: it is never in training."""
        return self

    def start_multi_process_pool(self, target_devices: list[str] | None = None) -> Pool:
        """A token for `pool` of `encode`: threads do the work of processes.

        Raises InputError for other devices than "cpu".
        """
        Foreign(CPU, _THREADS).check("target_devices", target_devices)
        return Pool()

    @staticmethod
    def stop_multi_process_pool(pool: Pool) -> None:
        """Does nothing, since there are no processes to stop. Raises InputError for what is no pool."""
        Foreign(POOL).check("pool", pool)

    if not TYPE_CHECKING:  # type checkers would take every name for an attribute

        def __getattr__(self, name: str) -> Any:
            instead = f": {ABSENT[name]}." if name in ABSENT else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{instead}")


_NO_TRAINING = "gte_np only computes vectors, so train with sentence-transformers and load the folder that it saves"
_NO_UPLOAD = "write model.save_pretrained(folder) and upload the folder with huggingface_hub"

# Attributes that a model does not have, and what to write instead.
ABSENT = {
    "bfloat16": "write EmbeddingModel(name, dtype='bfloat16')",
    "compile": "the kernels are compiled already, so leave it out",
    "cuda": "gte_np computes on the CPU, so leave it out",
    "dtype": "write model.bert.dtype",
    "fit": _NO_TRAINING,
    "get_max_seq_length": "write model.max_seq_length",
    "half": "write EmbeddingModel(name, dtype='bfloat16')",
    "parameters": _NO_TRAINING,
    "preprocess": "write model.tokenize(texts)",
    "push_to_hub": _NO_UPLOAD,
    "save_to_hub": _NO_UPLOAD,
    "state_dict": _NO_TRAINING,
    "train": _NO_TRAINING,
    "transformers_model": "write model.bert",
}
