"""Adapt the figures' colours to a page that is light or dark."""

from __future__ import annotations

import colorsys

from matplotlib.colors import to_hex, to_rgb

PAPER = {"light": "#FFFFFF", "dark": "#16191D"}  # as --paper in style.css
CONTRAST = 3.0  # of what isn't text, by WCAG 2.2, 1.4.11
_STEP = 0.02


def compute_contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colours, 1 to 21, as WCAG 2.2 defines it."""
    light, dark = sorted((_compute_luminance(first), _compute_luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def fit_to_paper(colour: str, theme: str) -> str:
    """Make a colour as dark, or as light, as it takes to be seen on the paper of a theme; "#rrggbb"."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*to_rgb(colour))
    step = -_STEP if theme == "light" else _STEP
    while (
        compute_contrast(fitted := to_hex(colorsys.hls_to_rgb(hue, lightness, saturation)), PAPER[theme])
        < CONTRAST
    ):
        lightness = min(max(lightness + step, 0.0), 1.0)
    return fitted


def _compute_luminance(colour: str) -> float:
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
