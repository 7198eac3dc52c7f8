"""How fast and how large gte_np is, beside the engines that people use: see benchmarks/README.md."""
