"""How fast would a model run where nobody measured it? A roofline, calibrated on what was measured.

Decoding one token reads every weight once, and reading a prompt token takes two operations per
weight, so that `itl = weight bytes / bandwidth` and `prefill = 2 * parameters / operations per s`
(Williams, Waterman and Patterson, Communications of the ACM 52(4), 2009). No machine reaches its
peaks; how much of them it reaches is regressed on the measured pairs.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from steelyard.errors import FigureError

FloatArray = npt.NDArray[np.float64]

# Strength with which a silicon's or model's own effect is drawn to that of its features alone.
_OWN_EFFECT_PENALTY = 1.0
_TINY_PENALTY = 1e-6


class RooflineCase(msgspec.Struct, frozen=True, kw_only=True):
    """One model on one machine.

    Attributes:
        machine: Identifies the machine.
        silicon: Its micro-architecture or GPU: machines of one silicon behave alike.
        hardware: `gpu`, `arm` or `x86`.
        model: The model.
        ideal_s: Seconds that the roofline alone would take; infinite peaks are none.
        features: Further logarithms that say how much of the peak is reached, same length for all.
    """

    machine: str
    silicon: str
    hardware: str
    model: str
    ideal_s: float
    features: tuple[float, ...] = ()


class Roofline(msgspec.Struct, frozen=True, kw_only=True):
    """A calibrated roofline; `predict_s` evaluates it.

    Attributes:
        columns: What each coefficient belongs to.
        coefficients: Of the logarithm of measured over ideal seconds.
        cases: Number of pairs it was calibrated on.
    """

    columns: tuple[str, ...]
    coefficients: tuple[float, ...]
    cases: int

    def predict_s(self, case: RooflineCase) -> float:
        """How many seconds would it take? An estimate.

        Args:
            case: Model and machine.
        """
        values = _row(case)
        log_ratio = math.fsum(
            coefficient * values.get(column, 0.0)
            for column, coefficient in zip(self.columns, self.coefficients, strict=True)
        )
        return case.ideal_s * math.exp(log_ratio)


def calibrate_roofline(cases: Sequence[RooflineCase], measured_s: Sequence[float]) -> Roofline:
    """How much of its roofline does hardware reach?

    Ridge regression of `log(measured / ideal)` on the class of hardware, the features, the model
    and the silicon; the last two are drawn to zero, so that unseen silicon gets its class's value.

    Args:
        cases: Measured pairs.
        measured_s: What was measured, seconds, > 0; shape (cases,).

    Returns:
        The calibrated roofline.

    Raises:
        FigureError: No cases.

    >>> case = RooflineCase(machine="m", silicon="s", hardware="arm", model="a", ideal_s=0.01)
    >>> roofline = calibrate_roofline([case, case], [0.02, 0.02])
    >>> round(roofline.predict_s(case), 6)
    0.02
    """
    if not cases:
        raise FigureError("no measured pair to calibrate a roofline on")
    rows = [_row(case) for case in cases]
    columns = tuple(sorted({column for row in rows for column in row}))
    x = np.array([[row.get(column, 0.0) for column in columns] for row in rows])
    y = np.array([math.log(s / case.ideal_s) for case, s in zip(cases, measured_s, strict=True)])
    penalty = np.array(
        [
            _OWN_EFFECT_PENALTY if c.startswith(("silicon:", "model:")) else _TINY_PENALTY
            for c in columns
        ]
    )
    found: FloatArray = np.linalg.solve(x.T @ x + np.diag(penalty), x.T @ y)
    return Roofline(columns=columns, coefficients=tuple(found.tolist()), cases=len(cases))


def _row(case: RooflineCase) -> dict[str, float]:
    """A class of hardware has its own intercept and its own slope on every feature."""
    row = {
        f"hardware:{case.hardware}": 1.0,
        f"silicon:{case.silicon}": 1.0,
        f"model:{case.hardware}:{case.model}": 1.0,
    }
    for number, value in enumerate(case.features):
        row[f"feature:{case.hardware}:{number}"] = value
    return row


def held_out_errors(
    cases: Sequence[RooflineCase], measured_s: Sequence[float], groups: Sequence[str]
) -> list[float]:
    """How wrong is the roofline for groups that it was not calibrated on?

    Args:
        cases: Measured pairs.
        measured_s: What was measured, seconds; shape (cases,).
        groups: Group of each pair, left out together; shape (cases,).

    Returns:
        |predicted / measured - 1| per case, in their order.
    """
    errors = [math.nan] * len(cases)
    for group in sorted(set(groups)):
        inside = [g == group for g in groups]
        rest = [i for i, held in enumerate(inside) if not held]
        if not rest:
            continue
        roofline = calibrate_roofline([cases[i] for i in rest], [measured_s[i] for i in rest])
        for i, held in enumerate(inside):
            if held:
                errors[i] = abs(roofline.predict_s(cases[i]) / measured_s[i] - 1.0)
    return errors
