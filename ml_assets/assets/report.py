"""The report page, written whenever `monitoring` found something new, and its link for the UI."""

from datetime import datetime

import dagster as dg

from ml_assets.lake import Lake
from ml_assets.model import Model
from ml_assets.report.write import write_report
from ml_assets.settings import Settings


def report(
    context: dg.AssetExecutionContext, model: Model, lake: Lake, now: datetime | None = None
) -> dict[str, dg.MetadataValue]:
    """Write the page of a model; metadata `report`, which a click opens while `ml-assets ui` runs, and `report_file`.

    What keeps the page from being made is said, and holds up nobody: alarms are not to wait for a page.
    """
    settings = Settings.from_environment()
    try:
        file = write_report(lake, model, settings.reports / f"{model.name}.html", now)
    except Exception as error:
        context.log.exception(f"{model.name}: the report page could not be written")
        return {"report": dg.MetadataValue.text(f"could not be written: {type(error).__name__}: {error}")}
    return {
        "report": dg.MetadataValue.url(f"{settings.report_ui}/{file.name}"),
        "report_file": dg.MetadataValue.path(str(file)),
    }
