"""How figures look: colours that the colour-blind tell apart, one per method over all figures, and the theme."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from valuesoup.report.model import method_names
from valuesoup.report.schema import Results

T = TypeVar("T")

# Okabe-Ito without its yellow and black, which vanish on a light or a dark page; then what is left between them. With
# the shapes, which go round at another pace, 24 methods can be told apart.
METHOD_COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    *("#AA4466", "#8C8C2E", "#6A51C7", "#9C5A2D", "#8CC265", "#C0A0E8"),
)
STAR = "M0,-1.1L.33,-.33L1.1,0L.33,.33L0,1.1L-.33,.33L-1.1,0L-.33,-.33Z"
METHOD_SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "triangle-right", "cross", STAR)
BASE_COLOUR = "#7F858F"
# Values and data sets have colours of their own, so that no one takes a value for a method.
VALUE_COLOURS = ("#7B6FD0", "#17A2A2", "#B58A12", "#C2567A", "#6B8E3D")
DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3), (1, 3))
QUADRANTS = {"both better": "#009E73", "mixed": "#9AA0AA", "both worse": "#D55E00"}
WARNING = "#D1242F"

STATIC_FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
PAGE_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def cycle(items: Sequence[T], count: int) -> list[T]:
    """The first ``count`` of ``items``, starting again at the end."""
    return [items[i % len(items)] for i in range(count)]


def method_scale(results: Results) -> tuple[list[str], list[str], list[str]]:
    """Names, colours and shapes of the methods and the base, the same in every figure of a report."""
    names = method_names(results)
    return (
        [*names, "base"],
        [*cycle(METHOD_COLOURS, len(names)), BASE_COLOUR],
        [*cycle(METHOD_SHAPES, len(names)), "diamond"],
    )


@dataclass(frozen=True)
class Glyph:
    """The mark of a method: an SVG path within [-1, 1]² and its colour."""

    path: str
    colour: str


_PATHS = {
    "circle": "M-.85,0a.85,.85 0 1,0 1.7,0a.85,.85 0 1,0 -1.7,0Z",
    "square": "M-.75,-.75H.75V.75H-.75Z",
    "triangle-up": "M0,-.85L.95,.8H-.95Z",
    "diamond": "M0,-1L.85,0L0,1L-.85,0Z",
    "triangle-down": "M0,.85L.95,-.8H-.95Z",
    "triangle-right": "M.85,0L-.8,.95V-.95Z",
    "cross": "M-.35,-.95H.35V-.35H.95V.35H.35V.95H-.35V.35H-.95V-.35H-.35Z",
    STAR: STAR,
}


def glyph_of(method: str, results: Results) -> Glyph:
    """The mark of one method as its points have it in the figures; a grey circle for a name that is no method."""
    names, _, shapes = method_scale(results)
    return Glyph(_PATHS[dict(zip(names, shapes, strict=True)).get(method, "circle")], colour_of(method, results))


def colour_of(method: str, results: Results) -> str:
    """The colour of one method; grey for the base and for a name that is no method."""
    names, colours, _ = method_scale(results)
    return dict(zip(names, colours, strict=True)).get(method, BASE_COLOUR)


def theme(ink: str, muted: str, rule: str, background: str | None, font: str) -> dict[str, object]:
    """A Vega-Lite configuration.

    Args:
        ink: Colour of titles and labels.
        muted: Colour of tick labels.
        rule: Colour of axes and grid.
        background: Colour behind a figure, None for transparent.
        font: CSS font list.
    """
    return {
        "background": background,
        "font": font,
        "view": {"stroke": None, "continuousWidth": 640, "continuousHeight": 360},
        "axis": {
            "labelColor": muted,
            "titleColor": ink,
            "titleFontWeight": 500,
            "labelFontSize": 12,
            "titleFontSize": 12.5,
            "titlePadding": 10,
            "domainColor": rule,
            "tickColor": rule,
            "gridColor": rule,
            "gridOpacity": 0.6,
            "tickCount": 6,
            "labelOverlap": True,
        },
        "legend": {
            "orient": "top",
            "direction": "horizontal",
            "labelColor": ink,
            "titleColor": muted,
            "labelFontSize": 12.5,
            "titleFontSize": 12,
            "titleFontWeight": 400,
            "symbolStrokeWidth": 2,
            "symbolSize": 90,
            "symbolOpacity": 1,
            "labelLimit": 220,
            "columnPadding": 16,
            "columns": 5,
        },
        "title": {
            "color": ink,
            "subtitleColor": muted,
            "anchor": "start",
            "fontSize": 13.5,
            "subtitleFontSize": 12,
            "fontWeight": 600,
            "offset": 12,
        },
        "text": {"color": ink, "fontSize": 12},
        "rule": {"color": ink},
        "style": {"ring": {"color": ink, "stroke": ink}},
        "concat": {"spacing": 28},
    }


STATIC_THEME = theme("#1C2330", "#5A6372", "#D5D9E0", "white", STATIC_FONT)
# The page draws SVG, where CSS variables are colours: dark, light and print need no second drawing.
PAGE_THEME = theme("var(--ink)", "var(--muted)", "var(--rule)", None, PAGE_FONT)
