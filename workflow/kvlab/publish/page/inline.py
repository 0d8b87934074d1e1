"""An SVG figure inside the page: ids are made unique, styles and comments removed, scripts refused."""

from __future__ import annotations

import re

from markupsafe import Markup

from kvlab.errors import LogError

_UNWANTED = re.compile(
    r"<\s*(script|foreignObject|iframe|image|use[^>]+href=\"[^#\"])|\son\w+\s*=|(?:href|src)\s*=\s*[\"'](?!#)", re.I
)

_COMMAND = re.compile(r"([A-Za-z])([^A-Za-z]*)")


def _short(path: str) -> str:
    """A path's data rounded to a tenth of a point, finer than a screen shows; line commands become relative."""
    found = _COMMAND.findall(path)
    if any(letter not in "MLz" for letter, _ in found):
        return " ".join(re.sub(r"(\.\d)\d+", r"\1", path).split())
    out, x, y = [], 0, 0  # in tenths
    for letter, numbers in found:
        points = [round(10 * float(number)) for number in numbers.split()]
        if letter == "z":
            out.append("z")
            continue
        for at in range(0, len(points), 2):
            dx, dy = points[at] - x, points[at + 1] - y
            x, y = points[at], points[at + 1]
            if letter == "M":
                out.append(f"M{_tenths(x)} {_tenths(y)}")
            elif dx and dy:
                out.append(f"l{_tenths(dx)} {_tenths(dy)}")
            elif dx or dy:
                out.append(f"h{_tenths(dx)}" if dx else f"v{_tenths(dy)}")
    return "".join(out)


def _tenths(value: int) -> str:
    return f"{value / 10:g}"


def inline_svg(text: str, prefix: str, labelled_by: str) -> Markup:
    """The `<svg>` element of a figure that matplotlib drew, for use in HTML. LogError where it has a script or a link
    to another file."""
    start = text.find("<svg")
    body = re.sub(r"<metadata>.*?</metadata>", "", text[start:], flags=re.DOTALL)
    if start < 0 or _UNWANTED.search(body):
        raise LogError(f"figure {prefix}: not a plain SVG drawing; make it again with: kvlab notebook")
    names = sorted(set(re.findall(r'\bid="([^"]+)"', body)), key=lambda name: (-len(name), name))  # longest first
    short = {name: f"{prefix}-{number}" for number, name in enumerate(names)}
    body = re.sub(r'\bid="([^"]+)"', lambda m: f'id="{short[m[1]]}"', body)
    body = re.sub(r'href="#([^"]+)"', lambda m: f'href="#{short.get(m[1], m[1])}"', body)
    body = re.sub(r"url\(#([^)]+)\)", lambda m: f"url(#{short.get(m[1], m[1])})", body)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r'\s*\bid="([^"]+)"', lambda m: m[0] if m[1] in used else "", body)
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)  # the page's style sheet has the same rules
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
