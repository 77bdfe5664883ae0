"""What each model is doing: read from the lake's records and the running endpoint server, without importing Dagster."""

from collections.abc import Callable
from typing import Any

from ml_assets.alerts.shown import alerts_of
from ml_assets.deployment.local import LocalTarget
from ml_assets.lake import WHOLE, Lake
from ml_assets.monitored import monitored
from ml_assets.probes import state_of
from ml_assets.records import TABLE, read_latest
from ml_assets.rollouts import LakeJournal
from ml_assets.settings import Settings

_JUDGED = ("version", "approved", "reasons", "values", "intervals", "gates", "comparison")


def status_of(settings: Settings) -> dict[str, Any]:
    """For each model that was ever materialised: rows, newest version, verdict and what serves."""
    lake = Lake(settings.lake)
    target = LocalTarget.of(settings)
    health = target.health()
    alerts = alerts_of(settings)
    models = {}
    for folder in sorted(settings.lake.glob(f"*/{TABLE}")):
        name = folder.parent.name
        latest = read_latest(lake, name)
        cleaned = latest.of("cleaned_data").values()
        trained, judged = latest.get("trained_model", WHOLE), latest.get("metrics", WHOLE)
        models[name] = {
            "partitions": len(latest.of("raw_data")),
            "rows": {
                "raw": sum(each.details["raw"] for each in cleaned),
                "cleaned": sum(each.rows for each in cleaned),
                "rejected": sum(each.details["rejected"] for each in cleaned),
                "duplicates": sum(each.details["duplicates"] for each in cleaned),
            },
            "trained": trained and {"version": trained.details["version"], "at": trained.recorded_at.isoformat()},
            "judged": judged and {name: judged.details.get(name) for name in _JUDGED},
            "serves": (health or {"models": {}})["models"].get(name),
            "monitoring": monitored(latest),
            "rollout": _rollout(lake, name),
            "refused_release": (health or {"refused": {}})["refused"].get(name),
            "probed": _probed(lake, name),
            "alerts": [each for each in alerts["open"] if each["model"] == name],
        }
    return {"endpoint": target.url(), "prediction_log": (health or {}).get("prediction_log"), "models": models}


def _probed(lake: Lake, model: str) -> dict[str, str] | None:
    """What the probes of a model's endpoint say."""
    state = state_of(lake, model)
    if state is None:
        return None
    return {"state": state.found, "since": state.since.isoformat(), "reason": state.reason}


def _rollout(lake: Lake, model: str) -> dict[str, Any] | None:
    """The newest rollout of a model."""
    states = LakeJournal(lake, model).states()
    if not states:
        return None
    last = states[-1]
    said: dict[str, Any] = {
        "number": last.number,
        "phase": last.phase.value,
        "reason": last.reason,
        "at": last.at.isoformat(),
    }
    said |= {"challenger": last.challenger.name, "champion": last.champion.name if last.champion else None}
    return said | {"weight": last.serves.weight, "findings": list(last.findings)}


def tell_status(status: dict[str, Any], tell: Callable[[str], None]) -> None:
    """The same for people."""
    tell(f"Endpoint server: {status['endpoint'] or 'does not run (start it with `ml-assets serve`)'}")
    if log := status["prediction_log"]:
        counts = f": {log['logged']:,} requests logged, {log['lost']:,} lost" if "logged" in log else ""
        tell(f"Prediction log {log['mode']}{counts}" + (f"; {log['error']}" if "error" in log else ""))
    for name, about in status["models"].items():
        rows = about["rows"]
        tell(f"{name}")
        tell(
            f"  rows    {rows['raw']:,} in = {rows['cleaned']:,} cleaned + {rows['rejected']:,} rejected + "
            f"{rows['duplicates']:,} duplicates, {about['partitions']} partition(s)"
        )
        judged = about["judged"]
        if judged:
            values = ", ".join(f"{metric} {value:.3f}" for metric, value in judged["values"].items())
            verdict = "approved" if judged["approved"] else "refused: " + "; ".join(judged["reasons"])
            tell(f"  judged  version {judged['version']}: {values}")
            tell(f"  verdict {verdict}")
            if judged["comparison"]:
                tell(f"  beside  {judged['comparison']['outcome']}: {judged['comparison']['reason']}")
        serves = about["serves"]
        tell(f"  serves  version {serves['version']} since {serves['since']}" if serves else "  serves  nothing")
        if serves:
            tell(f"  scorer  {serves['scorer']}: {serves['scorer_reason']}")
        if rolled := about["rollout"]:
            tell(f"  rollout {rolled['challenger']} {rolled['phase']} since {rolled['at'][:19]}: {rolled['reason']}")
        if watched := about["monitoring"]:
            tell(f"  watched {watched['day']}: {watched['wrong']}")
        for view, counts in (serves or {}).get("looked_up", {}).items():
            asked = sum(counts.values())
            missing = ", ".join(f"{count:,} {how}" for how, count in sorted(counts.items()) if how != "found")
            told = f"{counts.get('found', 0):,} of {asked:,} rows found" + (f"; {missing}" if missing else "")
            tell(f"  looks up {view}: {told if asked else 'not asked yet'}")
        if about["refused_release"]:
            tell(f"  refused {about['refused_release']['reason']}")
        if probed := about["probed"]:
            reason = f": {probed['reason']}" if probed["reason"] else ""
            tell(f"  probed  {probed['state']} since {probed['since'][:19]}{reason}")
        for each in about["alerts"]:
            tell(f"  alert   {each['severity']} since {each['opened'][:19]}: {each['title']}")
    if not status["models"]:
        tell("No model was materialised yet: `make run`, or `make ui`.")
