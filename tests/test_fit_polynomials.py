"""The coefficients in the code are those that scripts/fit_polynomials.py fits, and their errors are as it is told."""

from __future__ import annotations

from math import erf

import numpy as np
import pytest
from numpy.polynomial.polynomial import polyval

from gte_np.kernels.operations.functions import EXP2_COEFFICIENTS
from gte_np.reference.erf import ERF_COEFFICIENTS, ERF_LIMIT
from scripts.fit_polynomials import fit_erf, fit_exp2, literals, main


def test_erf_is_the_fit() -> None:
    # Interpolation in float64 leaves the highest coefficients uncertain by 3 units in the last place of float32: a
    # math library that rounds otherwise may give other ones.
    assert ERF_COEFFICIENTS.dtype == np.float32
    np.testing.assert_array_max_ulp(fit_erf().astype(np.float32), ERF_COEFFICIENTS, maxulp=4)


def test_erf_of_the_literals_is_within_1e_7() -> None:
    x = np.linspace(1e-9, ERF_LIMIT, 20_001)
    exact = np.array([erf(value) for value in x])
    ours = x * polyval(2 * x**2 / ERF_LIMIT**2 - 1, ERF_COEFFICIENTS.astype(np.float64))
    assert np.abs(ours - exact).max() < 1e-7


def test_exp2_is_the_fit() -> None:
    assert fit_exp2().astype(np.float32).tolist() == EXP2_COEFFICIENTS


@pytest.mark.parametrize(("coefficients", "error"), [(fit_exp2(), 9.15e-8), (np.array(EXP2_COEFFICIENTS), 1.084e-7)])
def test_relative_error_of_exp2(coefficients: np.ndarray, error: float) -> None:
    r = np.linspace(-0.5, 0.5, 100_001)
    assert np.abs(polyval(r, coefficients) / np.exp2(r) - 1).max() == pytest.approx(error, rel=1e-3)


def test_the_error_of_exp2_cannot_be_less() -> None:
    """Six errors of one size and alternating signs, three on each side of 0: no polynomial is better at all six."""
    r = np.linspace(-0.5, 0.5, 100_000)
    error = np.sign(r) * (polyval(r, fit_exp2()) / np.exp2(r) - 1)
    runs = np.split(error, np.flatnonzero(np.diff(np.sign(error))) + 1)
    assert [np.abs(run).max() for run in runs] == pytest.approx([9.1477e-8] * 6, rel=1e-4)


def test_literals_are_the_same_float32() -> None:
    for coefficients in (ERF_COEFFICIENTS, np.array(EXP2_COEFFICIENTS, np.float32)):
        values = [float(literal) for literal in literals(coefficients).split(", ")]
        assert np.array(values, np.float32).tolist() == coefficients.tolist()


def test_the_script_prints_them(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    assert f"EXP2_COEFFICIENTS = [{literals(np.array(EXP2_COEFFICIENTS, np.float32))}]" in capsys.readouterr().out
