"""What EmbeddingModel, BertModel and Tokenizer have in common, as objects that are loaded from files."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from gte_np.checkpoint.source import LoadedFiles

LoadedT = TypeVar("LoadedT", bound="Loaded")


class Loaded:
    """An object that was loaded. What is named in `FIXED` comes from its files and cannot be set.

    A copy shares what was loaded, which nothing changes, and has settings of its own. A pickle holds the settings
    and names the files: see `gte_np.checkpoint.source.LoadedFiles`.
    """

    FIXED: ClassVar[tuple[str, ...]] = ()
    _files: LoadedFiles | None = None

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.FIXED and name in vars(self):
            raise AttributeError(f"{name} comes from the model's files and cannot be set: load another model.")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        facts = [f"{name}={value!r}" for name, value in self._facts().items()]
        return f"{type(self).__name__}({', '.join([*self._origin(), *facts])})"

    def _origin(self) -> list[str]:
        if self._files is None:
            return []
        source = self._files.source
        return (
            [repr(str(source.folder))]
            if source.name is None
            else [repr(source.name), f"revision={source.revision!r}"]
        )

    def _facts(self) -> dict[str, object]:
        """What tells this object from others of its class, beside its files."""
        raise NotImplementedError

    def __copy__(self: LoadedT) -> LoadedT:
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def __deepcopy__(self: LoadedT, memo: dict[int, Any]) -> LoadedT:
        return self.__copy__()

    def __getstate__(self) -> dict[str, Any]:
        """Raise TypeError for an object that was not loaded from files."""
        if self._files is None:
            raise TypeError(
                f"cannot pickle a {type(self).__name__} that was not loaded from files, since a pickle names those: "
                "use from_pretrained or from_folder."
            )
        return {"_files": self._files}
