"""CoSy: drawings of the label against real images that nobody has chosen (arXiv 2405.20331).

AUC = P(a_drawn > a_control), ties half. MAD = (mean a_drawn - mean a_control) / sd a_control.
Both reward labels that are too narrow; they are for comparison with the literature.
"""

from __future__ import annotations

import numpy as np

from dnd.auc import auc_of
from dnd.evaluation.simulation import Floats


def cosy_auc(drawn: Floats, control: Floats) -> Floats:
    """AUC of each unit, (units,).

    Args:
        drawn: (drawings, units) activations on drawings of one label.
        control: (units, images) activations, each row ascending.
    """
    return np.array([auc_of(drawn[:, unit], ordered) for unit, ordered in enumerate(control)])


def cosy_mad(drawn: Floats, control: Floats) -> Floats:
    """MAD of each unit, (units,); NaN where the control activations are all equal.

    Args:
        drawn: (drawings, units) activations on drawings of one label.
        control: (units, images) activations.
    """
    spread = np.asarray(control, np.float64).std(axis=1)
    difference = drawn.mean(axis=0, dtype=np.float64) - control.mean(axis=1, dtype=np.float64)
    return np.asarray(difference / np.where(spread > 0, spread, np.nan))
