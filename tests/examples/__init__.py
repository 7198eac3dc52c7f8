"""Parts as one would add them, see "How to add" in ARCHITECTURE.md: each is one module and one line in a registry."""
