"""The area under the ROC curve of two groups of activations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def auc_of(own: NDArray[Any], others: NDArray[Any]) -> float:
    """The share of pairs in which the one of `own` is higher, ties half; 0.5 is chance.

    Args:
        own: Activations, at least one, in any order.
        others: Activations, at least one, ascending.
    """
    below = np.searchsorted(others, own, "left")
    up_to = np.searchsorted(others, own, "right")
    return float((below + up_to).sum() / (2.0 * len(own) * len(others)))
