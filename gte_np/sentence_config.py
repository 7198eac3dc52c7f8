"""What sentence-transformers' files say of a repository: modules, pooling, limits, prompts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from gte_np.architectures.weights import is_finite
from gte_np.checkpoint.json_file import Fields, is_there, read_json, read_json_object
from gte_np.checkpoint.weight_files import find_weights, read_tensors, weight_names
from gte_np.errors import CheckpointError, ModelNotFoundError, UnsupportedModelError
from gte_np.formats.stored_tensor import FLOAT_DTYPES, StoredTensor
from gte_np.modules import ACTIVATIONS, Dense, Module, Normalize
from gte_np.pooling import POOLING_MODES
from gte_np.similarity import SIMILARITY_FUNCTIONS

# The booleans of 1_Pooling/config.json before sentence-transformers 6, in the order in which they are joined.
POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Named after the kind of model; the first that is there counts, as in sentence-transformers.
_LIMIT_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# Options for transformers that change what is computed.
_LIMIT_OPTIONS = (
    *("model_args", "model_kwargs", "config_args", "config_kwargs", "tokenizer_args", "processor_kwargs"),
    *("processing_kwargs", "query_length", "document_length"),
)
_MODULE_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}|")  # beside modules.json; "" is the repository itself
_MODULE_TYPE = re.compile(r"sentence_transformers\.([A-Za-z_]+\.)+")


@dataclass(frozen=True)
class SentenceConfig:
    """How a repository turns hidden states into sentence vectors.

    `pooling_modes` is None where the repository has no pooling files. `max_seq_length` is the smallest limit of the
    sentence-transformers files, or None.
    """

    transformer_folder: Path
    pooling_modes: tuple[str, ...] | None = None
    modules: tuple[Module, ...] = ()
    max_seq_length: int | None = None
    do_lower_case: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity_fn_name: str = "cosine"
    truncate_dim: int | None = None


def read_sentence_config(folder: Path) -> SentenceConfig:
    """Read modules.json and the files that it leads to.

    A repository may have none of them; sentence-transformers then reads no other file of its own either.

    Raises CheckpointError for damaged files, and UnsupportedModelError, which names it, for a module or an option
    that is not implemented.
    """
    path = folder / "modules.json"
    if not is_there(path):
        return SentenceConfig(folder)
    entries = _read_modules_json(path)
    transformer = folder / entries[0][1]
    limits = _read_limits(transformer)
    sentence = Fields.of_optional(folder / "config_sentence_transformers.json")
    sentence.expect("model_type", ("SentenceTransformer", None))
    return SentenceConfig(
        transformer_folder=transformer,
        pooling_modes=_read_pooling(folder / entries[1][1]),
        modules=tuple(_read_module(kind, folder / path) for kind, path in entries[2:]),
        max_seq_length=_optional_integer(limits, "max_seq_length", least=3),
        do_lower_case=limits.boolean("do_lower_case", False),
        prompts=_read_prompts(sentence),
        default_prompt_name=_optional_text(sentence, "default_prompt_name"),
        similarity_fn_name=_read_similarity(sentence),
        truncate_dim=_optional_integer(sentence, "truncate_dim"),
    )


def sentence_files(folder: Path) -> list[str]:
    """The names of the files that `read_sentence_config` reads, or would read if they were there."""
    if not is_there(folder / "modules.json"):
        return ["modules.json"]
    (_, transformer), *others = _read_modules_json(folder / "modules.json")
    names = [PurePosixPath("modules.json"), PurePosixPath("config_sentence_transformers.json")]
    names += [PurePosixPath(transformer, name) for name in _LIMIT_FILES]
    for kind, path in others:
        files = ["config.json", *(weight_names(folder / path) if kind == "Dense" else [])]
        names += [PurePosixPath(path, name) for name in files]
    return [str(name) for name in names]


def _read_limits(folder: Path) -> Fields:
    """The first of the files that is there and says anything."""
    files = [Fields.of_optional(folder / name) for name in _LIMIT_FILES]
    limits = next((file for file in files if file.values), files[0])
    limits.expect("transformer_task", ("feature-extraction", None))
    limits.expect("module_output_name", ("token_embeddings", None))
    for key in _LIMIT_OPTIONS:
        limits.expect(key, (None, {}))
    return limits


def _read_modules_json(path: Path) -> list[tuple[str, str]]:
    """(type, folder) of each module; the first is the Transformer and the second the Pooling."""
    content = read_json(path)
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise CheckpointError(f"{path}: expected a list of modules, got {content!r:.80}.")
    entries = [_read_entry(Fields(path, entry)) for entry in content]
    kinds = [kind for kind, _ in entries]
    if kinds[:2] != ["Transformer", "Pooling"] or {"Transformer", "Pooling"} & set(kinds[2:]):
        raise UnsupportedModelError(
            f"{path}: expected the modules Transformer, Pooling, then any of Dense and Normalize, "
            f"got {', '.join(kinds) or 'none'}."
        )
    return entries


def _read_entry(entry: Fields) -> tuple[str, str]:
    module_type, path = entry.text("type", ""), entry.text("path", "")
    package, _, kind = module_type.rpartition(".")
    if not _MODULE_TYPE.fullmatch(package + ".") or kind not in ("Transformer", "Pooling", "Dense", "Normalize"):
        raise UnsupportedModelError(
            f"{entry.path}: module {module_type!r:.120} is not implemented; gte_np implements sentence-transformers' "
            "Transformer, Pooling, Dense and Normalize."
        )
    if not _MODULE_FOLDER.fullmatch(path):
        raise entry.error("path", "the name of a folder beside modules.json", path)
    return kind, path


def _read_pooling(folder: Path) -> tuple[str, ...]:
    path = folder / "config.json"
    if not path.is_file():
        raise ModelNotFoundError(f"{path}: listed in modules.json, but not there. Download it again.")
    fields = Fields(path, read_json_object(path))
    fields.expect("include_prompt", (True, None))
    if "pooling_mode" in fields.values:
        modes = fields.values["pooling_mode"]
        modes = [modes] if isinstance(modes, str) else modes
    else:
        flags = {mode: fields.boolean(flag, None) for flag, mode in POOLING_FLAGS.items()}
        is_silent = all(flag is None for flag in flags.values())
        modes = ["mean"] if is_silent else [mode for mode, flag in flags.items() if flag]
    if not isinstance(modes, list) or not modes:
        raise CheckpointError(f"{path}: expected at least one pooling mode, got {modes!r:.80}.")
    return check_pooling_modes(modes, path)


def check_pooling_modes(modes: list[Any], source: object) -> tuple[str, ...]:
    """Return the modes. Raise UnsupportedModelError, which names the source, for one that is not implemented."""
    for mode in modes:
        if not isinstance(mode, str) or mode not in POOLING_MODES:
            raise UnsupportedModelError(
                f"{source}: pooling mode {mode!r:.80} is not implemented; gte_np has {', '.join(POOLING_MODES)}."
            )
    return tuple(modes)


def _read_module(kind: str, folder: Path) -> Module:
    config = Fields.of_optional(folder / "config.json")
    config.expect("module_input_name", ("sentence_embedding", None))
    config.expect("module_output_name", ("sentence_embedding", None))
    return Normalize() if kind == "Normalize" else _read_dense(folder, config)


def _read_dense(folder: Path, config: Fields) -> Dense:
    config.expect("use_residual", (False, None))
    config.expect("activation_function", tuple(ACTIVATIONS))
    weights = find_weights(folder)
    tensors = read_tensors(weights)
    shape = (config.integer("out_features"), config.integer("in_features"))
    expected: dict[str, tuple[int, ...]] = {"linear.weight": shape}
    if config.boolean("bias", True):
        expected["linear.bias"] = shape[:1]
    came = {name: tensor.shape for name, tensor in tensors.items()}
    if came != expected or not all(_is_float(tensor) for tensor in tensors.values()):
        raise CheckpointError(f"{weights}: expected finite floats {expected}, got {came!r:.300} or other values.")
    bias = tensors.get("linear.bias")
    return Dense(
        weight=tensors["linear.weight"].to_float32(),
        bias=None if bias is None else bias.to_float32(),
        activation=config.text("activation_function", "torch.nn.modules.activation.Tanh"),
    )


def _is_float(tensor: StoredTensor) -> bool:
    return tensor.dtype in FLOAT_DTYPES and is_finite(tensor)


def _read_prompts(fields: Fields) -> dict[str, str]:
    prompts = fields.values.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str | None) for prompt in prompts.values()):
        raise fields.error("prompts", "an object of name to text", prompts)
    return {name: prompt or "" for name, prompt in prompts.items()}


def _optional_integer(fields: Fields, key: str, least: int = 1) -> int | None:
    return None if fields.values.get(key) is None else fields.integer(key, least=least)


def _optional_text(fields: Fields, key: str) -> str | None:
    return None if fields.values.get(key) is None else fields.text(key, "")


def _read_similarity(fields: Fields) -> str:
    name = _optional_text(fields, "similarity_fn_name") or "cosine"
    if name not in SIMILARITY_FUNCTIONS:
        raise UnsupportedModelError(
            f"{fields.path}: similarity_fn_name {name!r:.80} is not implemented; gte_np implements "
            f"{', '.join(SIMILARITY_FUNCTIONS)}."
        )
    return name
