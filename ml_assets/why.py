"""`ml-assets why`: the ledger of decisions, and what is due now, for people."""

from collections.abc import Callable

from ml_assets.assets.captured import captured_of
from ml_assets.automation.causes import answers
from ml_assets.automation.due import due_data
from ml_assets.automation.due_feedback import due_feedback
from ml_assets.automation.due_training import due_training
from ml_assets.automation.rollout import due_rollout
from ml_assets.errors import SourceError
from ml_assets.lake import WHOLE, Lake
from ml_assets.ledger import Decision, decisions
from ml_assets.materialize import serving_of
from ml_assets.model import Model
from ml_assets.monitored import monitored
from ml_assets.records import read_latest
from ml_assets.serving.online import open_online
from ml_assets.settings import Settings


def tell_why(settings: Settings, model: Model, last: int, tell: Callable[[str], None]) -> None:
    """Print the last decisions, oldest first, and then what is due, refused or held back at this moment."""
    lake = Lake(settings.lake)
    past = decisions(lake, model.name)
    if len(past) > last:
        tell(f"({len(past) - last} earlier decisions; --last shows more)")
    for each in past[-last:]:
        tell(_line(each))
    if not past:
        tell("No decision yet: the sensors have not run, and nothing was asked for.")
    tell("Now:")
    try:
        data = due_data(model, lake, open_online(settings.online_place, model.name))
    except SourceError as error:
        tell(f"  data      cannot be listed: {error}")
    else:
        for stretch in data.stretches():
            tell(f"  data      due: {_span(stretch.partitions)}: {stretch.reason}")
        for name, problem in data.problems.items():
            tell(f"  data      {name}: {problem}")
        if not data.needs and not data.problems:
            tell("  data      up to date")
    served = due_feedback(model, lake, settings.journal, captured=lambda: captured_of(model, serving_of(settings)))
    for stretch in served.stretches():
        tell(f"  feedback  due: {_span(stretch.partitions)}: {stretch.reason}")
    for name, problem in served.problems.items():
        tell(f"  feedback  {name}: {problem}")
    if not served.needs:
        tell("  feedback  up to date")
    if (watched := monitored(read_latest(lake, model.name))) is not None:
        tell(f"  watched   {watched['day']}: {watched['wrong']}")
        if watched["quality_day"] not in (None, watched["day"]):
            tell(f"  watched   {watched['quality_day']}, whose outcomes are known: {watched['quality']}")
    rollout = due_rollout(model, lake, serving_of(settings))
    tell(f"  rollout   {rollout.reason}")
    latest, training = read_latest(lake, model.name), due_training(model, lake)
    state = f"due: {', '.join(training.assets)}: " if training.assets else ""
    tell(f"  training  {state}{training.reason}")
    for answer in answers(model, latest):
        tell(f"    {answer.name:<8}  {answer.says}: {answer.reason}")
    judged = latest.get("metrics", WHOLE)
    for gate in judged.details.get("gates", []) if judged else ():
        tell(f"  gate      {gate['name']} {'passed' if gate['passed'] else 'failed'}: {gate['reason']}")


def _span(days: list[str]) -> str:
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def _line(decision: Decision) -> str:
    about = f" {', '.join(decision.assets)}" if decision.assets else ""
    days = f" ({decision.partitions} partition(s))" if decision.partitions else ""
    return f"{decision.at:%Y-%m-%d %H:%M:%S}  {decision.subject:<9} {decision.decision}{about}{days}: {decision.reason}"
