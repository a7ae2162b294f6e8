"""Measured figures as people read them."""

from __future__ import annotations

UNITS = ((1e-6, "µs"), (1e-3, "ms"), (1.0, "s"))


def duration(seconds: float) -> str:
    """Return three digits and the unit that suits them: `83.3 µs`."""
    values = [(float(f"{seconds / scale:.3g}"), unit) for scale, unit in UNITS]
    value, unit = next((pair for pair in values if pair[0] < 1000), values[-1])
    return f"{value:g} {unit}"


def percent(share: float) -> str:
    """Return `81 %`, with a decimal below 10."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"
