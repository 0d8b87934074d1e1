"""Colours, one set for the notebook's figures and the page: distinct with any colour vision, on light and dark.

Shares of the pool: Okabe and Ito, Color Universal Design (2008), or Paul Tol, Colour Schemes (2021), "bright". Arms
have the colours that `kvlab.arms` declares, each at least 3:1 on the light and on the dark page, none near a share's or
a phase's, so that an arm is never mistaken for a share. `INK` is what text, axes and grids are drawn in: the figures'
SVG holds `currentColor` in its place, so that they follow the page's theme.
"""

from __future__ import annotations

INK = "#010203"

# Policies of the simulator: each has the colour of the arm that measures it (`kvlab.arms`).
POLICIES = {
    "orca-max": "#7B4FC9",
    "orca-pow2": "#9A52B5",
    "orca-oracle": "#C06FDC",
    "reserved": "#45A035",
    "paged": "#009E73",
}

# The four shares and what else of a GPU's memory, the three phases of a request.
_SHARES = {
    "okabe-ito": {"tokens": "#0072B2", "reserved": "#56B4E9", "internal": "#E69F00", "external": "#999999"},
    "tol-bright": {"tokens": "#4477AA", "reserved": "#66CCEE", "internal": "#CCBB44", "external": "#999999"},
}
_PHASES = {"waiting": "external", "prefill": "internal", "decode": "tokens"}

PALETTES: dict[str, dict[str, str]] = {
    name: shares | {phase: shares[share] for phase, share in _PHASES.items()} for name, shares in _SHARES.items()
}


def colour(palette: str, name: str) -> str:
    """The colour of a share or a phase."""
    return PALETTES[palette][name]
