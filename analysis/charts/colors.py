"""The colors, hatchings, dashes and marks of charts: as many as a chart needs, and no two alike.

The colors of the vocabulary mean its dimensions; every other color here keeps away from their hues.
"""

from __future__ import annotations

from collections.abc import Iterable
from colorsys import hls_to_rgb, rgb_to_hls
from itertools import count as numbers
from itertools import islice

from taxonomy.store.terms import Behavior, Dimension, Leaf

INK, QUIET, LINE, PAPER = "#1b2733", "#54606c", "#d9dfe6", "#ffffff"
# What each color of the light scheme is in the dark one; a page swaps them. Charts add their own.
DARK = {INK: "#e3e8ee", QUIET: "#a8b4c1", LINE: "#33404e", PAPER: "#1a222c"}
FAINTEST = 0.34  # share of a dimension's color in the shade of its last behavior
GRAYS = ("#22303e", "#b4c0cb")  # the darkest and the lightest of parts that belong to no dimension
VIOLET, GOLDEN = 0.725, 0.618034  # a hue, and the part of a circle that spreads any number of hues
APART = 20 / 360  # hues nearer to a dimension's could be taken for it
LUMINANCES = (0.08, 0.15, 0.22)  # of neighbors; the contrast with white is at least 3.9 : 1
SHAPES = ("/", "x", ".", "\\", "|", "-", "+")
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star", "pentagon")
VARIANTS = ("", "-open", "-dot", "-open-dot")


def color_of(term: Dimension | Behavior | Leaf, *, dark: bool = False) -> str:
    """Return the color of a dimension, or its shade for a behavior or leaf."""
    dimension = term if isinstance(term, Dimension) else term.dimension
    color = dimension.color_dark if dark else dimension.color_light
    if isinstance(term, Dimension):
        return color
    behavior = term.behavior if isinstance(term, Leaf) else term
    place = dimension.behaviors.index(behavior) / max(len(dimension.behaviors) - 1, 2)
    return mixed(color, DARK[PAPER] if dark else PAPER, 1 - (1 - FAINTEST) * place)


def dark_colors(*terms: Dimension | Behavior | Leaf) -> dict[str, str]:
    """Return what the shared colors and those of the terms become on a dark page."""
    return DARK | {color_of(term): color_of(term, dark=True) for term in terms}


def free_colors(dimensions: Iterable[Dimension], count: int) -> dict[str, str]:
    """Return `count` colors that are near to no dimension's, and what each becomes on a dark page."""
    taken = [_hue(dimension.color_light) for dimension in dimensions]
    near = min(APART, 1 / (4 * max(len(taken), 1)))  # however many dimensions, half of the hues stay free
    hues = ((VIOLET + number * GOLDEN) % 1 for number in numbers())
    free = (hue for hue in hues if all(abs((hue - other + 0.5) % 1 - 0.5) > near for other in taken))
    colors = [_color(hue, LUMINANCES[number % len(LUMINANCES)]) for number, hue in enumerate(islice(free, count))]
    return {color: mixed("#ffffff", color, 0.5) for color in colors}


def tints(dimensions: Iterable[Dimension], *shares: float) -> dict[str, str]:
    """Return tints of the first free color, by its share in each, and what each becomes on a dark page."""
    ((light, dark),) = free_colors(dimensions, 1).items()
    return {mixed(light, PAPER, share): mixed(dark, DARK[PAPER], share) for share in shares}


def grays(count: int) -> dict[str, str]:
    """Return `count` grays from dark to light, and what each becomes on a dark page."""
    shades = [mixed(GRAYS[1], GRAYS[0], number / max(count - 1, 1)) for number in range(count)]
    return {shade: mixed("#ffffff", shade, 0.35) for shade in shades}


def mixed(color: str, other: str, share: float) -> str:
    """Return `share` of a color #rrggbb with the rest of another."""
    parts = zip(_parts(color), _parts(other), strict=True)
    return "#" + "".join(f"{round(share * one + (1 - share) * two):02x}" for one, two in parts)


def hatching(index: int) -> dict[str, object]:
    """Return the hatching of a stack's part of that number: none for the first, another one for each other part."""
    turn, place = divmod(index - 1, len(SHAPES))
    shape = {"shape": SHAPES[place], "size": 6 + 4 * turn} if index else {"shape": "", "size": 6}
    return shape | {"fillmode": "overlay", "fgcolor": PAPER, "fgopacity": 0.75, "solidity": 0.25}


def dash(index: int) -> str:
    """Return the dash of the line of that number: solid, then one long dash and ever more dots."""
    return "9px,3px" + ",2px,3px" * (index - 1) if index else "solid"


def mark(index: int) -> str:
    """Return the mark on the line of that number. Marks recur after 32 lines; their colors and dashes do not."""
    turn, place = divmod(index, len(SYMBOLS))
    return SYMBOLS[place] + VARIANTS[turn % len(VARIANTS)]


def _parts(color: str) -> list[int]:
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]


def _hue(color: str) -> float:
    red, green, blue = (part / 255 for part in _parts(color))
    return rgb_to_hls(red, green, blue)[0]


def _color(hue: float, luminance: float) -> str:
    """Return a color of a hue and a relative luminance, which is scaled where light adds up (gamma 2.2)."""
    light = [part**2.2 for part in hls_to_rgb(hue, 0.5, 0.6)]
    factor = luminance / sum(w * part for w, part in zip((0.2126, 0.7152, 0.0722), light, strict=True))
    return "#" + "".join(f"{round(255 * min(1.0, part * factor) ** (1 / 2.2)):02x}" for part in light)
