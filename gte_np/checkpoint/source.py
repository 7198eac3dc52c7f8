"""Where a model was loaded from: what a pickle holds in place of weights, and how another process finds them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from gte_np.arguments import check_flag
from gte_np.checkpoint.hub import local_folder, resolve_model
from gte_np.errors import CheckpointError, ModelNotFoundError
from gte_np.files import sha256_of

_State = tuple[int, int]  # the size of a file and when it was changed, in ns


@dataclass(frozen=True)
class Source:
    """A folder with files of a model.

    If it came from the hub, `name` is the model's there, `revision` the commit, and `inside` the folder in the
    repository; `weights` is whether weights were fetched too.
    """

    folder: Path
    name: str | None = None
    revision: str | None = None
    inside: str = ""
    weights: bool = True
    local_files_only: bool = False

    @classmethod
    def find(
        cls, name_or_path: str | os.PathLike[str], *, weights: bool = True, local_files_only: bool, **options: Any
    ) -> Source:
        """Find or fetch a model; arguments and errors are those of `resolve_model`."""
        check_flag("local_files_only", local_files_only)
        folder = resolve_model(name_or_path, weights=weights, local_files_only=local_files_only, **options)
        if local_folder(name_or_path):
            return cls.of_folder(folder)
        # The hub's client keeps each commit in a folder of that name.
        return cls(folder, os.fspath(name_or_path), folder.name, "", weights, local_files_only)

    @classmethod
    def of_folder(cls, folder: str | os.PathLike[str]) -> Source:
        """The source of a local folder, wherever the process goes."""
        return cls(Path(folder).absolute())

    def within(self, folder: Path) -> Source:
        """The source of a folder in this one."""
        return replace(self, folder=folder, inside=folder.relative_to(self.folder).as_posix())

    def with_files(self, names: Iterable[str]) -> Source:
        """The source of these files on this machine, which may not be the one where the model was loaded.

        What is no longer in the folder is looked up on the hub by name and commit, if it came from there. Raises
        ModelNotFoundError if files are not to be had.
        """
        missing = [name for name in names if not (self.folder / name).is_file()]
        if not missing:
            return self
        if self.name is None:
            raise ModelNotFoundError(
                f"expected {', '.join(missing)} in {str(self.folder)!r}, where the pickled model was loaded from. "
                "Copy the folder to that place, or pickle a model that was loaded by its name on the hub."
            )
        folder = resolve_model(
            self.name, revision=self.revision, local_files_only=self.local_files_only, weights=self.weights
        )
        return replace(self, folder=folder / self.inside)


class LoadedFiles:
    """The files of a source that an object was loaded from, or would have been had they been there.

    Its pickle holds their names and hashes. Where it is unpickled, the files must be the same: all of their bytes
    count, since a model with other weights would silently give other vectors.
    """

    def __init__(self, source: Source, names: Iterable[str]) -> None:
        self.source = source
        self._states = {name: _state(source.folder / name) for name in names}

    def __getstate__(self) -> dict[str, Any]:
        """Raise CheckpointError if a file is not what it was when the object was loaded."""
        return {"source": asdict(self.source) | {"folder": str(self.source.folder)}, "digests": self.digests()}

    def digests(self) -> dict[str, str | None]:
        """SHA-256 of each file by its name, None for one that is not there.

        Raises CheckpointError if a file is not what it was when the object was loaded.
        """
        digests = self._digests()
        self.check_unchanged()
        return digests

    def check_unchanged(self) -> None:
        """Raise CheckpointError if a file is not what it was when the object was loaded."""
        changed = [name for name, state in self._states.items() if _state(self.source.folder / name) != state]
        if changed:
            raise CheckpointError(
                f"{self.source.folder}: {', '.join(changed)} changed after the model was loaded, and only its files "
                "have its weights as they were published. Load the model again."
            )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Find the files on this machine. Raise ModelNotFoundError or CheckpointError unless they are the same."""
        digests: dict[str, str | None] = state["digests"]
        source = Source(**state["source"] | {"folder": Path(state["source"]["folder"])})
        self.source = source.with_files(name for name, digest in digests.items() if digest)
        self._states = {name: _state(self.source.folder / name) for name in digests}
        different = [name for name, digest in self._digests().items() if digest != digests[name]]
        if different:
            raise CheckpointError(
                f"{self.source.folder}: expected the files of the pickled model, got others: {', '.join(different)}. "
                "Copy the files that it was loaded from, or load the model from this folder without a pickle."
            )

    def _digests(self) -> dict[str, str | None]:
        """SHA-256 of each file as it was when its state was taken, None for one that is not there."""
        folder = self.source.folder
        return {
            name: None if state is None else _digest(folder / name, state) for name, state in self._states.items()
        }


def _state(path: Path) -> _State | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=256)  # a model may be pickled for each task of a pool
def _digest(path: Path, state: _State) -> str | None:
    """SHA-256 of a file that is in that state, None if it is gone."""
    try:
        return sha256_of(path)
    except OSError:
        return None
