"""A folder or a hub name in, the folder that holds the checkpoint's files out.

No other module reaches the network. This one imports the hub's client only for a name that is no local folder.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partialmethod
from pathlib import Path
from typing import Any

from gte_np.checkpoint.weight_files import index_of, weight_files
from gte_np.errors import InputError, MissingDependencyError, ModelNotFoundError

_LOG = logging.getLogger("gte_np")

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_HUB_NAME = re.compile(rf"(?!.*(?:\.\.|--))(?:{_PART}/)?{_PART}(?<!\.git)")

# File names come from a server. What these do not spell out is never asked for: onnx/, the weights of other
# frameworks, a path that climbs. A module has a folder like 1_Pooling; once the encoder had 0_Transformer.
_DESCRIPTION = re.compile(
    r"(\d+_\w+/)?((config|modules|config_sentence_transformers|sentence_[\w-]+_config|tokenizer|tokenizer_config"
    r"|special_tokens_map|added_tokens)\.json|vocab\.txt)",
    re.ASCII,
)
_MODULE_CONFIG = re.compile(r"(\d+_\w+/)config\.json", re.ASCII)
_ENCODER_WEIGHTS = re.compile(r"(0_\w+/)?(model|pytorch_model)[\w-]*\.(safetensors|bin)", re.ASCII)
_ENCODER_CONFIG = re.compile(r"(0_\w+/)?config\.json", re.ASCII)


def resolve_model(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    weights: bool = True,
) -> Path:
    """Return the folder that holds a model's files, after fetching those that are needed and not there yet.

    Without `weights`, those are not among the files that are needed.

    An existing folder is returned as it is. Any other text like "owner/name" or "name" is a name on the hub,
    where HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE mean what they always do. The cache takes the place
    of a hub that cannot be reached.

    Raises ModelNotFoundError if the folder, or the model, its revision or a file of it, is not there or cannot
    be fetched; InputError for a text that can be no name; MissingDependencyError without huggingface_hub.
    """
    folder = local_folder(name_or_path)
    if folder is not None:
        return folder
    cache = Path(cache_dir) if cache_dir else None
    model = _HubModel(os.fspath(name_or_path), revision, cache, token, weights)
    why_offline = _why_offline(local_files_only)
    return _from_cache(model, why_offline) if why_offline else _from_hub(model)


def _any_weights() -> str:
    return f"weights ({', '.join(weight_files())}, or the .index.json of one and all its shards)"


def choose_files(siblings: Iterable[str], weights: bool = True) -> list[str]:
    """Return those of a repository's files that are needed, at most one set of weights in each folder."""
    names = set(siblings)
    folders = ["", *(match[1] for name in names if (match := _MODULE_CONFIG.fullmatch(name)))] if weights else []
    chosen = (name for folder in folders for name in _weights(names, folder))
    return sorted([*filter(_DESCRIPTION.fullmatch, names), *chosen])


def _weights(names: set[str], folder: str) -> list[str]:
    for single in (folder + name for name in weight_files()):
        shards, index = _shards(names, single), index_of(single)
        if single in names:
            return [single]
        if shards and index in names:
            return [index, *shards]
    return []


def _shards(names: set[str], single: str) -> list[str]:
    """Return the shards that stand in for one file; none if they are not as many as their names say."""
    stem, _, suffix = single.rpartition(".")
    pattern = re.compile(rf"{stem}-\d+-of-(\d+)\.{suffix}", re.ASCII)
    shards = {name: int(match[1]) for name in names if (match := pattern.fullmatch(name))}
    return list(shards) if set(shards.values()) == {len(shards)} else []


def local_folder(name_or_path: str | os.PathLike[str]) -> Path | None:
    """Return the local folder that is meant, None if a name on the hub is; errors as in `resolve_model`."""
    text = os.fspath(name_or_path)  # a TypeError for None and numbers
    if not isinstance(text, str):
        raise TypeError(f"expected a folder or a model's name as str or path, got {type(text).__name__}.")
    if not text or "\0" in text:
        raise InputError(f"expected a folder or a model's name, got {text!r}.")
    # os.path, since pathlib raises where a text is too long for a path, or ~nobody has no home.
    path = os.path.expanduser(text)  # noqa: PTH111
    if os.path.isdir(path):  # noqa: PTH112
        return Path(path)
    if os.path.exists(path):  # noqa: PTH110
        raise ModelNotFoundError(f"expected a checkpoint's folder, got the file {text!r}.")
    if isinstance(name_or_path, os.PathLike) or _looks_like_path(text):
        raise ModelNotFoundError(f"the folder {text!r} does not exist. A name on the hub is like 'owner/name'.")
    return None


def _looks_like_path(text: str) -> bool:
    return Path(text).is_absolute() or text.startswith((".", "~")) or "\\" in text or text.count("/") > 1


@dataclass(frozen=True)
class _HubModel:
    """One revision of a model, as the hub's client is asked for it. InputError for what it cannot send."""

    name: str
    revision: str | None
    cache_dir: Path | None
    token: str | bool | None
    weights: bool

    def __post_init__(self) -> None:
        if not _HUB_NAME.fullmatch(self.name):
            raise InputError(f"expected a folder or a name like 'owner/name', got {self.name!r:.120}.")
        for what, value in (("revision", self.revision), ("token", self.token)):
            if not isinstance(value, (str, bool, type(None))):
                raise TypeError(f"expected the {what} as str, got {type(value).__name__}.")
            if isinstance(value, str) and not re.fullmatch(r"[!-~]+", value):  # a token is not repeated
                raise InputError(f"expected the {what} in visible ASCII characters.")

    def __str__(self) -> str:
        return f"{self.name!r} at revision {self.revision!r}" if self.revision else repr(self.name)

    def listed_files(self) -> list[str]:
        """Ask the hub for the names of all files."""
        from huggingface_hub import HfApi, constants

        timeout = constants.HF_HUB_ETAG_TIMEOUT  # else the cache never stands in for a hub that never answers
        info = HfApi().model_info(self.name, revision=self.revision, token=self.token, timeout=timeout)
        return [sibling.rfilename for sibling in info.siblings or ()]

    def recorded_files(self) -> list[str]:
        """Return the names of all files as the cache has recorded them, nothing if it has not."""
        try:
            from huggingface_hub import get_cached_repo_tree
            from huggingface_hub.errors import CachedRepoTreeNotFoundError
        except ImportError:  # older clients keep no record
            return []
        with suppress(CachedRepoTreeNotFoundError):
            tree = get_cached_repo_tree(self.name, revision=self.revision, cache_dir=self.cache_dir)
            return [file.path for file in tree]
        return []

    def snapshot(self, files: Sequence[str], local_files_only: bool = False) -> Path:
        """Return the cache's folder of the revision, after fetching those of the files that it lacks."""
        from huggingface_hub import snapshot_download

        folder = snapshot_download(
            self.name,
            revision=self.revision,
            cache_dir=self.cache_dir,
            token=self.token,
            allow_patterns=list(files),  # a chosen name has no character that is special in a pattern
            local_files_only=local_files_only,
            tqdm_class=_terminal_bar(),
        )
        return Path(folder)


def _terminal_bar() -> type[Any]:
    """Return the client's progress bar, one of which it would draw even if stderr is no terminal."""
    from huggingface_hub.utils.tqdm import tqdm

    class TerminalBar(tqdm):
        __init__ = partialmethod(tqdm.__init__, disable=None)  # None: unless it is a terminal

    return TerminalBar


def _why_offline(local_files_only: bool) -> str:
    """Say what forbids to ask the hub, "" if nothing. Raises MissingDependencyError without its client."""
    try:
        from huggingface_hub import constants
    except ImportError as error:
        message = "a name on the hub needs huggingface_hub. Install it, or pass the folder of a checkpoint."
        raise MissingDependencyError(message) from error
    if local_files_only:
        return "local_files_only is set"
    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""


def _from_hub(model: _HubModel) -> Path:
    """Fetch the needed files, or find them cached. Raises ModelNotFoundError if the hub refuses or both fail."""
    # Any Exception: the client lets its transports' through, and with its version these change.
    try:
        files = choose_files(model.listed_files(), model.weights)
    except Exception as error:
        if refusal := _refusal(error):
            raise ModelNotFoundError(f"{model} cannot be fetched: {refusal}") from error
        return _from_cache(model, f"the hub cannot be reached ({_one_line(error)})", error)
    if model.weights and not any(map(_ENCODER_WEIGHTS.fullmatch, files)):
        raise ModelNotFoundError(f"{model} has no {_any_weights()} on the hub.")
    try:
        folder = model.snapshot(files)
    except Exception as error:
        raise ModelNotFoundError(f"{model} cannot be fetched: {_refusal(error) or _one_line(error)}") from error
    lost = ", ".join(name for name in files if not (folder / name).is_file())
    if lost:  # the hub has failed between two questions, and the client has silently taken what was cached
        raise ModelNotFoundError(f"{model} cannot be fetched: {lost} did not come. Try again.")
    return folder


def _from_cache(model: _HubModel, why: str, cause: Exception | None = None) -> Path:
    """Return the cached folder. Raises ModelNotFoundError if there is none, or a file is missing in it."""
    command = " --revision ".join(filter(None, [f"hf download {model.name}", model.revision]))
    remedy = f"{'Run' if cause else 'Unset it, run'} `{command}` where the hub can be reached, or pass a folder."
    try:
        folder = model.snapshot([], local_files_only=True)
    except OSError as error:
        raise ModelNotFoundError(f"{model} is not in the cache, and {why}. {remedy}") from cause or error
    lost = ", ".join(_missing_files(folder, model))
    if lost:
        raise ModelNotFoundError(f"{model} is in the cache without {lost}, and {why}. {remedy}") from cause
    _LOG.log(logging.WARNING if cause else logging.INFO, "%s comes from the cache, since %s.", model, why)
    return folder


def _missing_files(folder: Path, model: _HubModel) -> list[str]:
    """Name what an interrupted download has left out: by the cache's record, else of the least needed."""
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    needed = choose_files(model.recorded_files() or present, model.weights)
    missing = [name for name in needed if name not in present]
    if not any(map(_ENCODER_CONFIG.fullmatch, needed)):
        missing.append("config.json")
    if model.weights and not any(map(_ENCODER_WEIGHTS.fullmatch, needed)):
        missing.append(_any_weights())
    return missing


def _refusal(error: Exception) -> str:
    """Say what the hub has answered, "" if it has given no answer."""
    from huggingface_hub import errors

    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    if isinstance(error, errors.GatedRepoError):
        return "access to it is restricted. Ask for it on the model's page, then pass token= or set HF_TOKEN."
    if isinstance(error, errors.RevisionNotFoundError):
        return "there is no such branch, tag or commit."
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return "the hub does not show it. Check the name; a private model needs a valid token= or HF_TOKEN."
    return _one_line(error) if status in (403, 404) or isinstance(error, errors.LocalTokenNotFoundError) else ""


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
