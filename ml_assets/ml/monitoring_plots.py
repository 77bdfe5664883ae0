"""Plots of the last days of `monitoring`: requests, latency, drift and quality, as PNG images."""

from collections.abc import Callable
from datetime import date
from functools import partial
from typing import Any

import polars as pl

from ml_assets.ml.plots import figure

MOST_LINES = 6


def draw(rows: pl.DataFrame, day: str, primary: str, title: str) -> dict[str, bytes]:
    """One image for each thing that there are values of.

    Args:
        rows: of the table `monitoring`, of some days.
        day: the column that says which.
        primary: metric by which the model is compared.
    """
    known = rows.drop_nulls("value").with_columns(pl.col(day).str.to_date().alias("day")).sort("day", "version", "name")
    paint: dict[str, tuple[Callable[..., None], pl.DataFrame]] = {
        "requests": (_requests, known.filter(pl.col("subject") == "requests", pl.col("name") != "failed_share")),
        "latency": (_latency, known.filter(pl.col("subject") == "latency")),
        "drift": (_drift, known.filter(pl.col("subject").is_in(["drift", "scores"]))),
        "quality": (_quality, known.filter(pl.col("subject") == "quality", pl.col("name") == primary)),
    }
    return {
        name: figure(partial(painter, rows=some), f"{title}: {primary if name == 'quality' else name} by day")
        for name, (painter, some) in paint.items()
        if some.height
    }


def _requests(axes: Any, rows: pl.DataFrame) -> None:
    for (name,), some in rows.partition_by("name", as_dict=True, maintain_order=True).items():
        if some.get_column("value").sum() or name == "answered":
            _line(axes, some, str(name))
    axes.set(ylabel="requests", yscale="symlog", ylim=(0, None))
    _finish(axes)


def _latency(axes: Any, rows: pl.DataFrame) -> None:
    for (name,), some in rows.partition_by("name", as_dict=True, maintain_order=True).items():
        _line(axes, some, str(name).removesuffix("_ms"))
    _limit(axes, rows.filter(pl.col("name") == "p99_ms"), "limit of p99")
    axes.set(ylabel="milliseconds", yscale="log")
    _finish(axes)


def _drift(axes: Any, rows: pl.DataFrame) -> None:
    """Those that drifted most, each by the worst version of the day."""
    worst = rows.group_by("day", "name").agg(pl.col("value").max(), pl.col("alarm").any(), pl.col("limit").first())
    ranked = worst.group_by("name").agg(pl.col("value").max()).sort("value", "name", descending=[True, False])
    shown = ranked.get_column("name").head(MOST_LINES).to_list()
    for name in shown:
        some = worst.filter(pl.col("name") == name).sort("day")
        _line(axes, some, name if len(name) <= 30 else f"{name[:29]}…")
    alarms = worst.filter("alarm")
    axes.plot(alarms["day"].to_list(), alarms["value"].to_list(), "rx", label="alarm" if alarms.height else None)
    _limit(axes, worst.sort("day"), "smallest that counts")
    more = f", {len(shown)} of {ranked.height}" if ranked.height > len(shown) else ""
    axes.set(ylabel=f"PSI{more}", ylim=(0, None))
    _finish(axes)


def _quality(axes: Any, rows: pl.DataFrame) -> None:
    for (version,), some in rows.partition_by("version", as_dict=True, maintain_order=True).items():
        [line] = _line(axes, some, f"version {version}")
        around = some.drop_nulls(["lower", "upper"])
        axes.fill_between(
            around["day"].to_list(),
            around["lower"].to_list(),
            around["upper"].to_list(),
            alpha=0.2,
            color=line.get_color(),
        )
        _limit(axes, some, "promised", line.get_color())
    axes.set(ylabel="of predictions with an outcome")
    _finish(axes)


def _line(axes: Any, rows: pl.DataFrame, label: str) -> Any:
    return axes.plot(rows["day"].to_list(), rows["value"].to_list(), marker=".", label=label)


def _limit(axes: Any, rows: pl.DataFrame, label: str, color: str = "grey") -> None:
    some = rows.drop_nulls("limit").unique("day").sort("day")
    if some.height:
        days: list[date] = some["day"].to_list()
        axes.plot(days, some["limit"].to_list(), linestyle=":", color=color, label=label)


def _finish(axes: Any) -> None:
    axes.tick_params(axis="x", rotation=30, labelsize=8)
    axes.legend(fontsize=8)
