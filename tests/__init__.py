"""The tests; they mirror the package."""

import pytest

pytest.register_assert_rewrite("tests.compiled", "tests.emulation.matrix_units", "tests.hub_server", "tests.programs")
