"""GTE text embeddings on a CPU, in NumPy."""
