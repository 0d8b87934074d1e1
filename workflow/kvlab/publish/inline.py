"""An SVG figure as part of the page: its ids its own, its style for itself alone, nothing in it that could run."""

from __future__ import annotations

import re

from markupsafe import Markup

from kvlab.errors import LogError

_UNWANTED = re.compile(
    r"<\s*(script|foreignObject|iframe|image|use[^>]+href=\"[^#\"])|\son\w+\s*=|(?:href|src)\s*=\s*[\"'](?!#)", re.I
)


def _short(path: str) -> str:
    """A path's data on one line, to a tenth of a point: finer than a screen shows."""
    return re.sub(r"\s*([A-Za-z])\s*", r"\1", re.sub(r"(\.\d)\d+", r"\1", path)).strip()


def inline_svg(text: str, prefix: str, labelled_by: str) -> Markup:
    """The `<svg>` element of a figure that matplotlib drew, to stand in HTML. LogError where it could run something."""
    start = text.find("<svg")
    body = re.sub(r"<metadata>.*?</metadata>", "", text[start:], flags=re.DOTALL)
    if start < 0 or _UNWANTED.search(body):
        raise LogError(f"figure {prefix}: not a plain SVG drawing; make it again with: kvlab notebook")
    names = sorted(set(re.findall(r'\bid="([^"]+)"', body)), key=len, reverse=True)
    short = {name: f"{prefix}-{number}" for number, name in enumerate(names)}
    body = re.sub(r'\bid="([^"]+)"', lambda m: f'id="{short[m[1]]}"', body)
    body = re.sub(r'href="#([^"]+)"', lambda m: f'href="#{short.get(m[1], m[1])}"', body)
    body = re.sub(r"url\(#([^)]+)\)", lambda m: f"url(#{short.get(m[1], m[1])})", body)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r'\s*\bid="([^"]+)"', lambda m: m[0] if m[1] in used else "", body)
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)  # the page's own style says the same
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'\bd="([^"]+)"', lambda m: f'd="{_short(m[1])}"', body)
    head, rest = body.split(">", 1)
    box = re.search(r'viewBox="([^"]+)"', head)
    if box is None:
        raise LogError(f"figure {prefix}: has no viewBox; make it again with: kvlab notebook")
    _, _, width, height = box[1].split()
    return Markup(
        f'<svg viewBox="{box[1]}" width="{float(width):.0f}" height="{float(height):.0f}" role="img" '
        f'aria-labelledby="{labelled_by}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    ) + Markup(re.sub(r"\n\s*", "\n", rest).strip())
