"""Scales of color that the color-blind can read, and ink that stands out on them."""

from collections.abc import Sequence

import matplotlib as mpl

_VALUES, _DIFFERENCES = "cividis", "PuOr"


def value_color(share: float) -> str:
    """Return a color between dark blue, for 0, and yellow, for 1.

    Example:
        >>> ink(value_color(0)), ink(value_color(1))
        ('#fff', '#000')
    """
    return _hex(_VALUES, share)


def difference_color(share: float) -> str:
    """Return a color between orange, for -1, near white, for 0, and purple, for 1."""
    return _hex(_DIFFERENCES, (share + 1) / 2)


def ink(background: str) -> str:
    """Return black or white, whichever has more contrast.

    Example:
        >>> ink("#00224e"), ink("#fee838")
        ('#fff', '#000')
    """
    light = _luminance(background)
    return "#fff" if 1.05 / (light + 0.05) > (light + 0.05) / 0.05 else "#000"


def value_stops(n: int = 9) -> list[str]:
    """Return the scale of values in n steps, for a legend."""
    return [value_color(step / (n - 1)) for step in range(n)]


def difference_stops(n: int = 9) -> list[str]:
    """Return the scale of differences in n steps, for a legend."""
    return [difference_color(2 * step / (n - 1) - 1) for step in range(n)]


def _hex(scale: str, share: float) -> str:
    red, green, blue, _ = mpl.colormaps[scale](
        float(min(max(share, 0), 1)), bytes=True
    )  # an integer would be a place in the scale's table
    return f"#{red:02x}{green:02x}{blue:02x}"


def _luminance(color: str) -> float:
    """Relative luminance as WCAG defines it."""
    parts: Sequence[float] = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
