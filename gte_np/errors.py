"""The errors of the package: each says what was expected, what came, and what to do.

Every mistake in a model, a name, a file or a text raises a subclass of `GteError`, which is also the
built-in exception that Python people would catch there. Arguments of a wrong type raise `TypeError`.
"""

MESSAGE_END = 2000  # characters: a longer message is its beginning and its end


class GteError(Exception):
    """Base of every error that this package raises for a user's mistake.

    Its message is one line of printable characters, whatever a file or an argument put into it.
    """

    def __init__(self, message: str) -> None:
        if len(message) > 2 * MESSAGE_END:
            message = f"{message[:MESSAGE_END]} ... {message[-MESSAGE_END:]}"
        printable = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
        super().__init__("".join(printable))


class ModelNotFoundError(GteError, FileNotFoundError):
    """A folder, a hub name, a revision or a file that is not there, or cannot be reached."""


class CheckpointError(GteError, ValueError):
    """A checkpoint file that is broken, contradicts another one, or is not safe to read."""


class UnsupportedModelError(GteError, ValueError):
    """A checkpoint that is well formed, but of a kind that this package does not implement."""


class InputError(GteError, ValueError):
    """An argument or a text whose value cannot be used."""


class MissingDependencyError(GteError, ImportError):
    """An optional package that the request needs and that is not installed."""


class BackendError(GteError, RuntimeError):
    """A backend that is installed, and cannot work in this process: it cannot compile, or start threads, say."""
