"""Rounding to significant digits, so that near-ties do not flip with the batch size."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def round_value(value: float, num_digits: int) -> float:
    """`value` to `num_digits` significant decimal digits."""
    return float(f"{value:.{num_digits - 1}e}")


def round_digits(values: ArrayLike, num_digits: int) -> NDArray[np.float64]:
    """`values` rounded to `num_digits` significant decimal digits, in their shape."""
    array = np.asarray(values, dtype=np.float64)
    rounded = [round_value(value, num_digits) for value in array.ravel().tolist()]
    return np.array(rounded, dtype=np.float64).reshape(array.shape)
