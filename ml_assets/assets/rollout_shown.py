"""What the UI shows of a rollout: who serves, every step with its reason, what was found, and plots of it."""

import base64
from collections.abc import Sequence
from typing import Any

import dagster as dg

from ml_assets.deployment.rollout import Phase, State
from ml_assets.deployment.rollout_plots import draw
from ml_assets.deployment.targets import Described, Release
from ml_assets.rollouts import serving_history

MOST_LINES = 20


def shown(model: str, described: Described, states: Sequence[State], waits: str) -> dict[str, dg.MetadataValue]:
    """Metadata of a materialisation of `endpoint`."""
    metadata: dict[str, dg.MetadataValue] = {
        "serves": dg.MetadataValue.text(
            f"{model} version {Release.named(described.stable).version}" if described.stable else "nothing"
        ),
        "rollout": dg.MetadataValue.text(waits),
    }
    if described.since:
        metadata["since"] = dg.MetadataValue.text(f"{described.since:%Y-%m-%d %H:%M:%S} UTC")
    if described.challenger:
        share = "shadow" if described.shadow else f"{described.weight} %"
        metadata["challenger"] = dg.MetadataValue.text(f"{described.challenger}: {share}")
    if not states:
        return metadata
    last = states[-1]
    own = [each for each in states if each.number == last.number]
    metadata["steps"] = _table([_step(each) for each in own[-MOST_LINES:]])
    metadata["history"] = _table(_history(states))
    if last.findings:
        metadata["findings"] = _table([_finding(each) for each in last.findings])
    # The steps of a rollout begin anew with each of its entries, and the last ones say all that was observed.
    if last.observed and last.phase is not Phase.STAGING:
        title = f"{model}: {last.challenger.name} beside {last.champion.name if last.champion else 'nothing'}"
        for name, png in draw(last.observed, title).items():
            metadata[name] = dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")
    return metadata


def _step(state: State) -> dict[str, Any]:
    return {
        "at": f"{state.at:%Y-%m-%d %H:%M:%S}",
        "phase": state.phase.value,
        "share": f"{state.serves.weight} %",
        "reason": state.reason,
    }


def _history(states: Sequence[State]) -> list[dict[str, Any]]:
    lines = serving_history(states).tail(MOST_LINES).to_dicts()
    return [
        {
            "from": f"{each['from']:%Y-%m-%d %H:%M:%S}",
            "to": f"{each['to']:%Y-%m-%d %H:%M:%S}" if each["to"] else "now",
            "serves": each["stable"] or "nothing",
            "beside it": f"{each['challenger']} ({'shadow' if each['shadow'] else str(each['weight']) + ' %'})"
            if each["challenger"]
            else "",
        }
        for each in lines
    ]


def _finding(said: dict[str, Any]) -> dict[str, Any]:
    numbers = {name: said[name] for name in ("value", "low", "high", "margin")}
    return {
        "test": said["name"],
        "outcome": said["outcome"],
        **{name: "" if value is None else f"{value:.4g}" for name, value in numbers.items()},
        "requests": said["requests"],
        "reason": said["reason"],
    }


def _table(lines: list[dict[str, Any]]) -> dg.MetadataValue:
    return dg.MetadataValue.table([dg.TableRecord(each) for each in lines])
