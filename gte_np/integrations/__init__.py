"""Adapters for other libraries, each imported only when used."""
