"""Numbers as the report writes them: those that are compared, with equally many decimals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """The range of a group of numbers, which are written with equally many decimals."""

    low: float = 0.0
    high: float = 0.0

    @classmethod
    def of(cls, values: Sequence[float]) -> Scale:
        return cls(min(values), max(values)) if values else cls()

    def fraction(self, value: float, *, flat: float = 0.0) -> float:
        """0 for the lowest to 1 for the highest; `flat` where all are equal."""
        return (value - self.low) / (self.high - self.low) if self.high > self.low else flat

    def text(self, value: float, digits: int = 3) -> str:
        """`value` with as many decimals as give the largest number `digits` significant digits."""
        largest = max(abs(self.low), abs(self.high))
        if largest and not 1e-4 <= largest < 1e6:
            return f"{value:.1e}".replace("-", "−")
        decimals = max(0, digits - 1 - math.floor(math.log10(largest))) if largest else 0
        text = f"{value:.{decimals}f}"
        return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def short(value: float | None, digits: int = 3) -> str:
    """One number by itself, with `digits` significant digits."""
    return "–" if value is None else Scale.of([value]).text(value, digits)


def format_bytes(num_bytes: int) -> str:
    """Bytes as people say them, in powers of ten: "512 B", "3.4 MB", "1,200 TB"."""
    size = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def format_duration(seconds: float) -> str:
    """Seconds as people say them: "42 s", "4 min 12 s", "3 h 20 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
