"""The version of the package, which has it also where there is no metadata of an installation, as in a zip."""

__version__ = "0.1.0"
