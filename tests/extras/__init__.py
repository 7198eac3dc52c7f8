"""Tests with large packages: each has an environment of its own, by make test-ray and make stores."""
