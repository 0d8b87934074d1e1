"""Colours, one set for the notebook's figures and the page: told apart with any colour vision, on light and dark.

Okabe and Ito, Color Universal Design (2008); Paul Tol, Colour Schemes (2021), "bright". `INK` is what text, axes and
grids are drawn in: the figures' SVG holds `currentColor` in its place, so that they follow the page's theme.
"""

from __future__ import annotations

INK = "#010203"

PALETTES: dict[str, dict[str, str]] = {
    "okabe-ito": {
        "tokens": "#0072B2",
        "reserved": "#56B4E9",
        "internal": "#E69F00",
        "external": "#999999",
        "hf-sequential-static": "#D55E00",
        "hf-sequential-dynamic": "#E69F00",
        "hf-batch-static": "#CC79A7",
        "hf-continuous": "#A0522D",
        "vllm-sequential": "#56B4E9",
        "vllm-contiguous": "#4477AA",
        "vllm-paged": "#009E73",
        "vllm-paged-eager": "#7A9A01",
    },
    "tol-bright": {
        "tokens": "#4477AA",
        "reserved": "#66CCEE",
        "internal": "#CCBB44",
        "external": "#999999",
        "hf-sequential-static": "#EE6677",
        "hf-sequential-dynamic": "#CCBB44",
        "hf-batch-static": "#AA3377",
        "hf-continuous": "#997700",
        "vllm-sequential": "#66CCEE",
        "vllm-contiguous": "#4477AA",
        "vllm-paged": "#228833",
        "vllm-paged-eager": "#7A9A01",
    },
}


def colour(palette: str, name: str) -> str:
    """The colour of a share or an arm; grey for what has none of its own."""
    return PALETTES[palette].get(name, "#777777")
