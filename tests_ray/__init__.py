"""Tests with a real Ray: make test-ray. They are apart because Ray is large and takes seconds to start."""
