"""Charts as HTML with inline SVG: the SVG stretches to any width, its strokes and the text around it do not.

No script, no font, nothing from elsewhere. What a colour says, a shape, a dash or a text says too.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from markupsafe import Markup, escape

WIDTH, HEIGHT = 1000, 200  # of the SVG's own units
MOST_CELLS = 92  # of a strip; more days become weeks
Values = Sequence[float | None]
Format = Callable[[float], str]


@dataclass(frozen=True)
class Line:
    """A line over days, with its interval if it has one.

    Attributes:
        look: CSS class, which has a colour and a dash.
        alarms: days that are marked.
        key: the look in the legend, where several lines have one entry.
    """

    label: str
    values: Values
    look: str
    lower: Values = ()
    upper: Values = ()
    alarms: Sequence[bool] = ()
    key: str = ""


@dataclass(frozen=True)
class Mark:
    """Something that happened on a day."""

    day: str
    label: str
    look: str
    text: str


def line_chart(
    title: str,
    days: Sequence[str],
    lines: Sequence[Line],
    *,
    show: Format,
    told: str,
    marks: Sequence[Mark] = (),
    least: float | None = None,
    most: float | None = None,
    log: bool = False,
    open_from: str = "",
) -> Markup:
    """Lines over days.

    Args:
        show: a value with its unit.
        told: what the chart shows, for those who do not see it.
        least, most: of the axis; by default what the values need.
        open_from: first day whose values may still change.
    """
    low, high = _range(lines, least, most, log=log)
    scale = (lambda value: math.log10(max(value, low))) if log else float
    bottom, top = scale(low), scale(high)

    def y(value: float) -> float:
        return HEIGHT * (1 - (min(max(scale(value), bottom), top) - bottom) / (top - bottom))

    ticks = [each for each in _ticks(low, high, log=log) if low <= each <= high]
    parts = [f'<path class="grid" d="{"".join(f"M0 {y(each):.1f}h{WIDTH}" for each in ticks)}"/>']
    if open_from in days:
        start = _x(days.index(open_from), len(days), edge=True)
        parts.append(f'<rect class="open" x="{start:.1f}" y="0" width="{WIDTH - start:.1f}" height="{HEIGHT}"/>')
    for mark in marks:
        if mark.day in days:
            parts.append(f'<path class="mark {mark.look}" d="M{_x(days.index(mark.day), len(days)):.1f} 0v{HEIGHT}"/>')
    parts += [f'<path class="band {each.look}" d="{_band(each, y)}"/>' for each in lines if each.lower]
    for each in lines:
        parts.append(f'<path class="line {each.look}" d="{_path(each.values, y)}"/>')
        if alone := _alone(each.values, y):
            parts.append(f'<path class="line lone {each.look}" d="{alone}"/>')
    for each in lines:
        points = [
            f"M{_x(number, len(days)):.1f} {y(value):.1f}h0"
            for number, (value, alarm) in enumerate(zip(each.values, each.alarms or [False] * len(days), strict=True))
            if alarm and value is not None
        ]
        if points:
            parts.append(f'<path class="halo" d="{"".join(points)}"/><path class="alarm" d="{"".join(points)}"/>')
    legend = [(each.label, f"line {each.key or each.look}") for each in lines]
    if any(any(each.alarms) for each in lines):
        legend.append(("alarm", "alarm"))
    if open_from in days:
        legend.append(("outcomes still arrive", "open"))
    return _figure(title, days, parts, [(y(each) / HEIGHT, show(each)) for each in ticks], told, legend, marks)


def bar_chart(
    title: str,
    days: Sequence[str],
    bars: Mapping[str, tuple[str, Values]],
    *,
    show: Format,
    told: str,
    alarms: Sequence[bool] = (),
) -> Markup:
    """Bars of several kinds on top of each other, one pile a day.

    Args:
        bars: by label the look and the values.
        alarms: days that are marked below.
    """
    totals = [sum(values[number] or 0 for _, values in bars.values()) for number in range(len(days))]
    high = _ticks(0, max([*totals, 1e-9]), log=False)[-1]
    ticks = _ticks(0, high, log=False)
    parts = [f'<path class="grid" d="{"".join(f"M0 {HEIGHT * (1 - each / high):.1f}h{WIDTH}" for each in ticks)}"/>']
    width = WIDTH / len(days)
    wide = width * (0.8 if len(days) <= 120 else 1)
    below = [0.0] * len(days)
    for look, values in bars.values():
        path = []
        for number, value in enumerate(values):
            if value:
                tall = HEIGHT * value / high
                left, floor = number * width + (width - wide) / 2, HEIGHT * (1 - below[number] / high)
                path.append(f"M{left:.1f} {floor:.1f}h{wide:.1f}v-{tall:.2f}h-{wide:.1f}z")
                below[number] += value
        parts.append(f'<path class="bar {look}" d="{"".join(path)}"/>')
    legend = [(label, f"bar {look}") for label, (look, values) in bars.items() if any(values)]
    if any(alarms):
        points = [f"M{(number + 0.5) * width:.1f} {HEIGHT - 2}h0" for number, each in enumerate(alarms) if each]
        parts.append(f'<path class="halo" d="{"".join(points)}"/><path class="alarm" d="{"".join(points)}"/>')
        legend.append(("alarm", "alarm"))
    return _figure(title, days, parts, [(1 - each / high, show(each)) for each in ticks], told, legend)


@dataclass(frozen=True)
class Strip:
    """One row of a heat map.

    Attributes:
        values: by day.
        worst: what is said beside it.
    """

    name: str
    values: Values
    alarms: Sequence[bool]
    worst: str = ""


def heat_map(title: str, days: Sequence[str], strips: Sequence[Strip], bins: Sequence[float]) -> Markup:
    """Rows of cells over days, darker where the value is in a higher bin; a dot over each cell with an alarm.

    Args:
        bins: values from which on the next darker colour begins; at most four.
    """
    size = 1 if len(days) <= MOST_CELLS else 7
    cells = math.ceil(len(days) / size)
    rows = []
    for each in strips:
        worst = [_worst(each.values[start : start + size]) for start in range(0, len(days), size)]
        alarms = [any(each.alarms[start : start + size]) for start in range(0, len(days), size)]
        paths = [_cells([sum(value >= edge for edge in bins) if value is not None else None for value in worst])]
        dots = "".join(f"M{number + 0.5} 2h0" for number, alarm in enumerate(alarms) if alarm)
        if dots:
            paths.append(f'<path class="alarm small" d="{dots}"/>')
        said = f"{each.name}: {each.worst}; {sum(map(bool, each.alarms))} days with an alarm"
        rows.append(
            Markup('<div class="strip"><span class="name" title="{}">{}</span>').format(each.name, each.name)
            + Markup(
                f'<svg viewBox="0 0 {cells} 10" preserveAspectRatio="none" role="img" aria-label="{escape(said)}">'
                f"{''.join(paths)}</svg>"
            )
            + Markup('<span class="worst">{}</span></div>').format(each.worst)
        )
    axis = Markup('<div class="strip axis"><span></span><div class="x">{}</div><span></span></div>').format(_days(days))
    return (
        Markup('<div class="heat" role="group" aria-label="{}">').format(title)
        + Markup("").join(rows)
        + axis
        + Markup("</div>")
    )


def weekly(days: Sequence[str]) -> bool:
    """Whether a heat map of these days shows weeks."""
    return len(days) > MOST_CELLS


def _worst(values: Values) -> float | None:
    return max((each for each in values if each is not None), default=None)


def _cells(colours: Sequence[int | None]) -> str:
    """Cells of one colour that follow each other are one line."""
    runs: dict[int, list[str]] = {}
    start = 0
    for number in range(1, len(colours) + 1):
        if number == len(colours) or colours[number] != colours[start]:
            colour = colours[start]
            if colour is not None:
                runs.setdefault(colour, []).append(f"M{start} 6.5h{number - start}")
            start = number
    return "".join(f'<path class="cell heat{colour}" d="{"".join(path)}"/>' for colour, path in sorted(runs.items()))


def _x(number: int, days: int, *, edge: bool = False) -> float:
    return WIDTH * (number + (0 if edge else 0.5)) / days


def _path(values: Values, y: Callable[[float], float]) -> str:
    """A line with a gap where there is no value."""
    path, pen = [], False
    for number, value in enumerate(values):
        if value is None:
            pen = False
            continue
        path.append(f"{'L' if pen else 'M'}{_x(number, len(values)):.1f} {y(value):.1f}")
        pen = True
    return "".join(path)


def _alone(values: Values, y: Callable[[float], float]) -> str:
    """Values without a neighbour, as dots: no line shows them."""
    there = [None, *values, None]
    return "".join(
        f"M{_x(number, len(values)):.1f} {y(value):.1f}h0"
        for number, value in enumerate(values)
        if value is not None and there[number] is None and there[number + 2] is None
    )


def _band(line: Line, y: Callable[[float], float]) -> str:
    path: list[str] = []
    stretch: list[tuple[float, float, float]] = []
    half = WIDTH / len(line.values) / 2
    for number, (low, high) in enumerate([*zip(line.lower, line.upper, strict=True), (None, None)]):
        if low is not None and high is not None:
            stretch.append((_x(number, len(line.values)), y(low), y(high)))
        elif stretch:
            if len(stretch) == 1:  # of one day alone the band is as wide as the day
                x, below, above = stretch[0]
                stretch = [(x - half, below, above), (x + half, below, above)]
            upper = "L".join(f"{x:.1f} {above:.1f}" for x, _, above in stretch)
            lower = "L".join(f"{x:.1f} {below:.1f}" for x, below, _ in reversed(stretch))
            path.append(f"M{upper}L{lower}z")
            stretch = []
    return "".join(path)


def _range(lines: Sequence[Line], least: float | None, most: float | None, *, log: bool) -> tuple[float, float]:
    """What the values need. Of intervals, which a day with few rows has wide, as much as the values' own span."""
    values = [each for line in lines for each in line.values if each is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if log:
        positive = [each for each in values if each > 0]
        return 10 ** math.floor(math.log10(min(positive, default=0.1))), 10 ** math.ceil(
            math.log10(max(high, 1)) + 1e-9
        )
    span = (high - low) or abs(high) * 0.1 or 1.0
    ends = [each for line in lines for each in (*line.lower, *line.upper) if each is not None]
    low, high = max(min([low, *ends]), low - span), min(max([high, *ends]), high + span)
    low = least if least is not None else low - 0.05 * (high - low)
    high = most if most is not None else high + 0.05 * (high - low)
    return (low, high) if high > low else (low, low + 1)


def _ticks(low: float, high: float, *, log: bool) -> list[float]:
    """Round values on the axis. From 0 on the last one is not below `high`."""
    if log:
        return [10.0**each for each in range(round(math.log10(low)), round(math.log10(high)) + 1)]
    step = 10 ** math.floor(math.log10((high - low) / 3))
    step *= next(each for each in (1, 2, 5, 10) if (high - low) / (step * each) <= 4)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = [round(each * step, 12) for each in range(first, last + 1)]
    return [*ticks, round((last + 1) * step, 12)] if low == 0 and ticks[-1] < high - 1e-9 else ticks


def _days(days: Sequence[str]) -> Markup:
    """Up to five days along the axis; a narrow screen shows the first, the middle and the last."""
    count = len(days)
    numbers = sorted({round(each * (count - 1) / 4) for each in range(5)}) if count > 4 else list(range(count))
    years = len({each[:4] for each in days}) > 1
    kept = {0, count - 1, numbers[len(numbers) // 2]}
    said = []
    for number in numbers:
        day = date.fromisoformat(days[number])
        text = f"{day.day} {day:%b}" + (f" {day:%y}" if years else "")
        look = "only" if count == 1 else "first" if number == 0 else "last" if number == count - 1 else ""
        wide = "" if number in kept else " more"
        said.append(f'<span class="{look}{wide}" style="left:{_x(number, count) / WIDTH:.2%}">{text}</span>')
    return Markup("".join(said))


def _figure(
    title: str,
    days: Sequence[str],
    parts: Sequence[str],
    ticks: Sequence[tuple[float, str]],
    told: str,
    legend: Sequence[tuple[str, str]],
    marks: Sequence[Mark] = (),
) -> Markup:
    labels = Markup("").join(
        Markup('<span style="top:{}">{}</span>').format(f"{place:.1%}", text) for place, text in ticks
    )
    flags, free = [], -1.0
    shown = [each for each in marks if each.day in days]
    for each in shown:
        place = _x(days.index(each.day), len(days)) / WIDTH
        text = each.label if place - free > 0.1 else ""
        free = place if text else free
        flags.append(
            Markup('<span class="flag {}" style="left:{}" title="{}">{}</span>').format(
                each.look, f"{place:.2%}", each.text, text
            )
        )
    entries = [*dict.fromkeys(legend), *dict.fromkeys((each.look, f"flag {each.look}") for each in shown)]
    keys = Markup("").join(
        Markup('<span class="key"><i class="{}"></i>{}</span>').format(look, text) for text, look in entries
    )
    return (
        Markup('<figure class="chart"><h3>{}</h3><div class="legend">{}</div>').format(title, keys)
        + Markup('<div class="plot{}">').format(" flagged" if flags else "")
        + Markup('<div class="y" aria-hidden="true">{}</div><div class="area">').format(labels)
        + Markup(
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img"><title>{escape(title)}</title>'
            f"<desc>{escape(told)}</desc>{''.join(parts)}</svg>"
        )
        + Markup("").join(flags)
        + Markup('</div><div class="x" aria-hidden="true">{}</div></div></figure>').format(_days(days))
    )
