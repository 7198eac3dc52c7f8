"""A folder or a hub name in, the folder that holds the checkpoint's files out.

No other module reaches the network, and this one imports the hub's client only for a name that is no local folder.
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

from gte_np.errors import InputError, MissingDependencyError, ModelNotFoundError

_LOG = logging.getLogger("gte_np")

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_HUB_NAME = re.compile(rf"(?!.*(?:\.\.|--))(?:{_PART}/)?{_PART}(?<!\.git)")

# The names of files come from a server. What these do not spell out is never asked for: onnx/, the weights of other
# frameworks, a path that climbs. A module's folder is like 1_Pooling; old repositories have a 0_Transformer too.
_DESCRIPTION = re.compile(
    r"(\d+_\w+/)?((config|modules|config_sentence_transformers|sentence_\w+_config|tokenizer|tokenizer_config"
    r"|special_tokens_map|added_tokens)\.json|vocab\.txt)",
    re.ASCII,
)
_MODULE_CONFIG = re.compile(r"(\d+_\w+/)config\.json", re.ASCII)
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that is there, whole or in shards
_ENCODER_WEIGHTS = re.compile(r"(0_\w+/)?(model|pytorch_model)[\w-]*\.(safetensors|bin)", re.ASCII)
_ENCODER_CONFIG = re.compile(r"(0_\w+/)?config\.json", re.ASCII)
_NO_WEIGHTS = f"weights ({' or '.join(_WEIGHTS)}, or all shards of one and its .index.json)"


def resolve_model(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """Return the folder that holds a model's files, after fetching those that are needed and not there yet.

    An existing folder is returned as it is. Another text like "owner/name" or "name" is a name on the hub, where
    HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE mean what they always do. If the hub cannot be reached, the
    cache takes its place.

    Raises ModelNotFoundError if the folder, or the model, its revision or a file of it, is not there or cannot be
    fetched; InputError for a text that can be no name; MissingDependencyError without huggingface_hub.
    """
    folder = _local_folder(name_or_path)
    if folder is not None:
        return folder
    model = _HubModel(os.fspath(name_or_path), revision, Path(cache_dir) if cache_dir else None, token)
    why_offline = _why_offline(local_files_only)
    return _from_cache(model, why_offline) if why_offline else _from_hub(model)


def choose_files(siblings: Iterable[str]) -> list[str]:
    """Return those of a repository's files that are needed, with at most one set of weights for each folder."""
    names = set(siblings)
    folders = ["", *(match[1] for name in names if (match := _MODULE_CONFIG.fullmatch(name)))]
    descriptions = filter(_DESCRIPTION.fullmatch, names)
    return sorted([*descriptions, *(name for folder in folders for name in _weights(names, folder))])


def _weights(names: set[str], folder: str) -> list[str]:
    for single in (folder + name for name in _WEIGHTS):
        shards = _shards(names, single)
        if single in names:
            return [single]
        if shards and f"{single}.index.json" in names:
            return [f"{single}.index.json", *shards]
    return []


def _shards(names: set[str], single: str) -> list[str]:
    """Return the shards that stand in for one file; none if they are not as many as their names say."""
    stem, _, suffix = single.rpartition(".")
    pattern = re.compile(rf"{stem}-\d+-of-(\d+)\.{suffix}", re.ASCII)
    shards = {name: int(match[1]) for name in names if (match := pattern.fullmatch(name))}
    return list(shards) if set(shards.values()) == {len(shards)} else []


def _local_folder(name_or_path: str | os.PathLike[str]) -> Path | None:
    """Return the local folder that is meant, None if a name on the hub is."""
    text = os.fspath(name_or_path)  # a TypeError for None and numbers
    if not isinstance(text, str):
        raise TypeError(f"expected a folder or a model's name as str or path, got {type(text).__name__}.")
    if not text or "\0" in text:
        raise InputError(f"expected a folder or a model's name, got {text!r}.")
    # os.path, since pathlib raises for a text that is too long for a path and for the home of nobody.
    path = os.path.expanduser(text)  # noqa: PTH111
    if os.path.isdir(path):  # noqa: PTH112
        return Path(path)
    if os.path.exists(path):  # noqa: PTH110
        raise ModelNotFoundError(f"expected a checkpoint's folder, got the file {text!r}.")
    if isinstance(name_or_path, os.PathLike) or _looks_like_path(text):
        raise ModelNotFoundError(
            f"the folder {text!r} does not exist. A name on the hub is like 'owner/name'."
        )
    return None


def _looks_like_path(text: str) -> bool:
    return Path(text).is_absolute() or text.startswith((".", "~")) or "\\" in text or text.count("/") > 1


@dataclass(frozen=True)
class _HubModel:
    """One revision of a model, in the words of the hub's client. InputError for what the client cannot send."""

    name: str
    revision: str | None
    cache_dir: Path | None
    token: str | bool | None

    def __post_init__(self) -> None:
        if not _HUB_NAME.fullmatch(self.name):
            raise InputError(
                f"expected a folder that exists or a name like 'owner/name', got {self.name!r:.120}."
            )
        for what, value in (("revision", self.revision), ("token", self.token)):
            if isinstance(value, str) and not re.fullmatch(r"[!-~]+", value):  # a token is not repeated
                raise InputError(f"expected the {what} in visible ASCII characters.")

    def __str__(self) -> str:
        return f"{self.name!r}" + (f" at revision {self.revision!r}" if self.revision else "")

    def listed_files(self) -> list[str]:
        """Ask the hub for the names of all files."""
        from huggingface_hub import HfApi, constants

        timeout = (
            constants.HF_HUB_ETAG_TIMEOUT
        )  # else a hub that never answers keeps the cache from being used
        info = HfApi().model_info(self.name, revision=self.revision, token=self.token, timeout=timeout)
        return [sibling.rfilename for sibling in info.siblings or ()]

    def recorded_files(self) -> list[str]:
        """Return the names of all files as the cache has recorded them; nothing if it has not."""
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
        """Return the cache's folder for the revision, after fetching those of the files that it lacks."""
        from huggingface_hub import snapshot_download

        folder = snapshot_download(
            self.name,
            revision=self.revision,
            cache_dir=self.cache_dir,
            token=self.token,
            allow_patterns=list(files),  # no chosen name has a character that is special in a pattern
            local_files_only=local_files_only,
            tqdm_class=_terminal_bar(),
        )
        return Path(folder)


def _terminal_bar() -> type[Any]:
    """Return the client's progress bar, less its habit of drawing one bar where stderr is no terminal."""
    from huggingface_hub.utils.tqdm import tqdm

    class TerminalBar(tqdm):
        __init__ = partialmethod(tqdm.__init__, disable=None)  # tqdm's word for "unless it is a terminal"

    return TerminalBar


def _why_offline(local_files_only: bool) -> str:
    """Say what forbids to ask the hub, "" if nothing does. MissingDependencyError without the hub's client."""
    try:
        from huggingface_hub import constants
    except ImportError as error:
        message = "a name on the hub needs huggingface_hub: install it, or pass the folder of a checkpoint."
        raise MissingDependencyError(message) from error
    if local_files_only:
        return "local_files_only is set"
    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""


def _from_hub(model: _HubModel) -> Path:
    """Fetch the needed files. Raises ModelNotFoundError if the hub refuses, or it and the cache do not have them."""
    # Any Exception: the client lets through those of its transports, and which these are changes with its version.
    try:
        files = choose_files(model.listed_files())
    except Exception as error:
        reason = _refusal(error)
        if reason:
            raise ModelNotFoundError(f"{model} cannot be fetched: {reason}") from error
        return _from_cache(model, f"the hub cannot be reached ({_one_line(error)})", error)
    if not any(map(_ENCODER_WEIGHTS.fullmatch, files)):
        raise ModelNotFoundError(f"{model} has no {_NO_WEIGHTS} on the hub.")
    try:
        return model.snapshot(files)
    except Exception as error:
        raise ModelNotFoundError(
            f"{model} cannot be fetched: {_refusal(error) or _one_line(error)}"
        ) from error


def _from_cache(model: _HubModel, why: str, cause: Exception | None = None) -> Path:
    """Return the cached folder. Raises ModelNotFoundError if there is none, or a file is missing in it."""
    advice = (
        f"{why}. Run `hf download {model.name}` where the hub can be reached, or pass the path of a folder."
    )
    try:
        folder = model.snapshot([], local_files_only=True)
    except OSError as error:
        raise ModelNotFoundError(f"{model} is not in the cache, and {advice}") from cause or error
    missing = _missing_files(folder, model.recorded_files())
    if missing:
        raise ModelNotFoundError(
            f"{model} is in the cache without {', '.join(missing)}, and {advice}"
        ) from cause
    _LOG.log(logging.WARNING if cause else logging.INFO, "%s comes from the cache, since %s.", model, why)
    return folder


def _missing_files(folder: Path, recorded: Sequence[str]) -> list[str]:
    """Name what an interrupted download has left out: by the cache's record, or else the least that is needed."""
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    needed = choose_files(recorded or present)
    missing = [name for name in needed if name not in present]
    if not any(map(_ENCODER_CONFIG.fullmatch, needed)):
        missing.append("config.json")
    if not any(map(_ENCODER_WEIGHTS.fullmatch, needed)):
        missing.append(_NO_WEIGHTS)
    return missing


def _refusal(error: Exception) -> str:
    """Say in one line what the hub has answered; "" if it has given no answer."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalTokenNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, GatedRepoError):
        return "access to it is restricted. Ask for it on the model's page, then pass token= or set HF_TOKEN."
    if isinstance(error, RevisionNotFoundError):
        return "there is no such branch, tag or commit."
    if isinstance(error, RepositoryNotFoundError) or status == 401:
        return "the hub does not show it. Check the name; a private model needs a valid token= or HF_TOKEN."
    return _one_line(error) if status in (403, 404) or isinstance(error, LocalTokenNotFoundError) else ""


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
