"""Plots of what both sides of a rollout answered, and how quickly, as PNG images."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ml_assets.deployment.targets import Histogram, Observation, Side
from ml_assets.ml.plots import figure

SIDES = ("champion", "challenger")


def draw(steps: Sequence[Observation], title: str) -> dict[str, bytes]:
    """Distribution functions of the scores and of the latency of both sides, over all steps."""
    found = {}
    names = sorted({name for each in steps for side in SIDES for name in _side(each, side).scores})
    for name in names[:1]:  # of several classes the first: the findings name the worst
        score = {side: _sum([_side(each, side).scores.get(name, Histogram()) for each in steps]) for side in SIDES}
        found["rollout_scores"] = figure(partial(_paint, sides=score, name=name, log=False), title)
    latency = {side: _sum([_side(each, side).latency for each in steps]) for side in SIDES}
    if any(each is not None for each in latency.values()):
        found["rollout_latency"] = figure(partial(_paint, sides=latency, name="seconds", log=True), title)
    return found


def _side(step: Observation, name: str) -> Side:
    side: Side = getattr(step, name)
    return side


def _sum(histograms: Sequence[Histogram]) -> Histogram | None:
    """All values together; None where there are none."""
    some = [each for each in histograms if each.edges and sum(each.counts)]
    if not some:
        return None
    return Histogram(some[0].edges, tuple(np.sum([each.counts for each in some], axis=0).tolist()))


def _paint(axes: Any, sides: dict[str, Histogram | None], name: str, *, log: bool) -> None:
    for side, each in sides.items():
        if each is not None:
            share = np.cumsum(each.counts)[:-1] / sum(each.counts)
            axes.step(each.edges, share, where="post", label=f"{side} ({sum(each.counts):,})")
    axes.set(xlabel=name, ylabel="share of answers at or below", ylim=(0, 1.02))
    if log:
        axes.set_xscale("log")
    axes.legend(fontsize=8)
