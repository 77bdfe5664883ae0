"""`make run`: the demo from landed files to an answering endpoint, and a summary that says only what happened."""

import time
from datetime import date, timedelta
from pathlib import Path

import click

from ml_assets.demo.business import FIRST_DAY, Business, land
from ml_assets.demo.callers import MODEL
from ml_assets.deployment.local import LocalTarget
from ml_assets.errors import EndpointError
from ml_assets.lake import WHOLE, Lake
from ml_assets.records import read_latest
from ml_assets.settings import Settings
from ml_assets.status import status_of, tell_status


def folder_of(settings: Settings) -> Path:
    """Where the demo's business lands its files."""
    return Path(settings.landing) / MODEL


def show(settings: Settings, days: int) -> None:
    """Land, materialise what is due, prove the endpoint, summarise.

    Raises:
        RunFailedError, click.ClickException: if anything of it did not happen.
    """
    started = time.monotonic()
    folder = folder_of(settings)
    if not list(folder.glob("orders/*.parquet")):
        click.echo(f"Landing {days} days of orders and their outcomes in {folder} ...")
        land(Business(), folder, FIRST_DAY, days)
    from ml_assets.materialize import materialize_due, materialize_feedback, models_of, prepare_dagster_home

    prepare_dagster_home(settings)
    click.echo("Looking for what is due ...")
    model = models_of(settings)[MODEL]
    runs = materialize_due(settings, model, click.echo)
    target = LocalTarget.of(settings)
    answer = _prove(settings, target, fresh=bool(runs))
    runs += materialize_feedback(settings, model, click.echo)  # what was just asked for
    click.echo("")
    click.echo(f"Materialised in {len(runs)} run(s)." if runs else "Nothing was due: nothing was computed again.")
    click.echo(answer)
    tell_status(status_of(settings), click.echo)
    click.echo(
        f"\nDone in {time.monotonic() - started:.0f} s. Next: `make ui` (graph, runs, plots at http://localhost:3000),"
    )
    click.echo("`.venv/bin/ml-assets land` (one more day arrives; with `make ui` the sensors refresh and retrain),")
    click.echo("`make stop` (end the endpoint server).")


def _prove(settings: Settings, target: LocalTarget, *, fresh: bool) -> str:
    """Ask the server for the release's golden rows, and after a materialisation for predictions of real orders."""
    record = read_latest(Lake(settings.lake), MODEL).get("endpoint", WHOLE)
    if record is None:
        raise click.ClickException(f"{MODEL} does not serve; see `ml-assets status` and the run in `make ui`")
    url = target.start()
    release = settings.releases / MODEL / record.details["release"]
    try:
        target.wait_for(url, MODEL, release.name)
        golden = target.prove(url, MODEL, release)
        if not fresh:
            return f"{url}: version {record.details['version']} answered {len(golden)} golden rows as recorded."
        # The first orders of the day after the last one that landed. Once that day lands, it is known how they went.
        orders = Business().asked(_next_day(settings), 3)
        answer = target.ask(MODEL, orders, url, ids=[each["order_id"] for each in orders])
        target.wait_until_logged(url)
    except EndpointError as error:
        raise click.ClickException(str(error)) from None
    told = ", ".join(
        f"{'late' if each['label'] else 'in time'} ({each['score']:.2f})" for each in answer["predictions"]
    )
    return f"{url}/models/{MODEL}/predict: three orders asked, version {answer['version']} says: {told}."


def _next_day(settings: Settings) -> date:
    landed = sorted(folder_of(settings).glob("orders/*.parquet"))
    return date.fromisoformat(landed[-1].stem) + timedelta(days=1)
