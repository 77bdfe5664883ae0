"""`ml-assets`: the few commands for which Dagster has no verb. Each imports what it needs when it runs."""

import sys
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import click

from ml_assets.errors import MlAssetsError
from ml_assets.settings import Settings

DAY = click.DateTime(["%Y-%m-%d"])
MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M"])


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Self-refreshing production models on Dagster. `dagster` does the rest."""


@cli.command()
@click.option("--days", default=31, show_default=True, help="Days of the demo's business to land at first.")
def demo(days: int) -> None:
    """Land the demo's first month, bring its model to life, and say what became of it."""
    from ml_assets.demo.show import show

    show(Settings.from_environment(), days)


@cli.command()
@click.option("--days", default=1, show_default=True, help="How many more days.")
@click.option("--drift-from", type=DAY, help="From this day on the business drifts.")
def land(days: int, drift_from: datetime | None) -> None:
    """Land the next days of the demo's business, as an outside system would; the sensors find them.

    While a server serves its model, the shop asks it about each order of these days first.
    """
    from ml_assets.demo.business import FIRST_DAY, Business, land
    from ml_assets.demo.callers import ask_about
    from ml_assets.demo.show import folder_of
    from ml_assets.deployment.local import LocalTarget

    settings = Settings.from_environment()
    folder = folder_of(settings)
    there = sorted(folder.glob("orders/*.parquet"))
    first = date.fromisoformat(there[-1].stem) + timedelta(days=1) if there else FIRST_DAY
    business = Business(drift_from=drift_from.date() if drift_from else None)
    for number in range(days):
        day = first + timedelta(days=number)
        answered = ask_about(LocalTarget.of(settings), business, day)
        if answered:
            by = ", ".join(f"{count:,} by version {version}" for version, count in sorted(answered.items()))
            click.echo(f"{day}: the shop asked about {answered.total():,} orders, answered {by}.")
        for path in land(business, folder, day, 1):
            click.echo(path)


@cli.command()
@click.option("--port", type=int, help="Default: ML_ASSETS_ENDPOINT_PORT, or the next free port.")
@click.option("--foreground", is_flag=True, help="Serve in this process until Ctrl-C, instead of in the background.")
def serve(port: int | None, foreground: bool) -> None:
    """Start the endpoint server over the releases that are there."""
    from ml_assets.deployment.local import LocalTarget

    settings = Settings.from_environment()
    port = port or settings.endpoint_port
    if foreground:
        from ml_assets.serving.__main__ import serve as serve_here

        serve_here(settings.releases, port)
        return
    click.echo(LocalTarget.of(settings, port).start())


@cli.command()
def stop() -> None:
    """Stop the endpoint server."""
    from ml_assets.deployment.local import LocalTarget

    settings = Settings.from_environment()
    stopped = LocalTarget.of(settings).stop()
    click.echo("The endpoint server was stopped." if stopped else "No endpoint server runs.")


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(as_json: bool) -> None:
    """What serves, and what was trained and judged last, for each model."""
    from ml_assets.status import status_of, tell_status

    found = status_of(Settings.from_environment())
    if as_json:
        import json

        click.echo(json.dumps(found, indent=2))
    else:
        tell_status(found, click.echo)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--test", is_flag=True, help="Send each channel a test message now, and say what became of it.")
def alerts(as_json: bool, test: bool) -> None:
    """What people are told of and is not over, and what waits for its channel."""
    from ml_assets.alerts.shown import alerts_of, tell_alerts, try_channels

    settings = Settings.from_environment()
    if test:
        sys.exit(0 if try_channels(settings, click.echo) else 1)
    found = alerts_of(settings)
    if as_json:
        import json

        click.echo(json.dumps(found, indent=2))
    else:
        tell_alerts(found, click.echo)


@cli.command()
@click.argument("model")
def refresh(model: str) -> None:
    """Make what is due of a model now, from its data to its endpoint, as the sensors do while `make ui` runs."""
    from ml_assets.materialize import materialize_due, model_of, prepare_dagster_home

    settings = Settings.from_environment()
    prepare_dagster_home(settings)
    runs = materialize_due(settings, model_of(settings, model), click.echo)
    click.echo(f"{model}: {len(runs)} run(s)." if runs else f"{model}: nothing was due.")


@cli.command()
@click.argument("model")
@click.option("--last", default=20, show_default=True, help="How many decisions.")
def why(model: str, last: int) -> None:
    """What was refreshed and retrained, what was not, and why; and what is due now."""
    from ml_assets.materialize import model_of
    from ml_assets.why import tell_why

    settings = Settings.from_environment()
    tell_why(settings, model_of(settings, model), last, click.echo)


@cli.command()
@click.argument("model")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File; default: in the folder of reports.")
def report(model: str, out: Path | None) -> None:
    """Write the report page of a model, and print where it lies."""
    from ml_assets.lake import Lake
    from ml_assets.materialize import model_of
    from ml_assets.report.write import write_report

    settings = Settings.from_environment()
    file = out or settings.reports / f"{model}.html"
    click.echo(write_report(Lake(settings.lake), model_of(settings, model), file))


@cli.command()
@click.argument("model")
def replay(model: str) -> None:
    """Clean rejected and refused rows anew, after the contract, the data or the limits were mended."""
    from ml_assets.materialize import model_of, prepare_dagster_home
    from ml_assets.materialize import replay as replay_rows

    settings = Settings.from_environment()
    prepare_dagster_home(settings)
    before, after = replay_rows(settings, model_of(settings, model), click.echo)
    click.echo(f"{model}: {before:,} rejected rows before, {after:,} now.")


@cli.command()
@click.argument("model")
@click.option("--to", default="previous", show_default=True, help="Version or release that served before.")
def rollback(model: str, to: str) -> None:
    """Put the last champion back by hand, or end a rollout that is under way."""
    from ml_assets.materialize import model_of, prepare_dagster_home, roll_back

    settings = Settings.from_environment()
    prepare_dagster_home(settings)
    roll_back(settings, model_of(settings, model), to, click.echo)


@cli.command()
@click.argument("model")
@click.option("--at", type=MOMENT, help="Time (UTC); default: now.")
@click.option("--key", help="Of the entity or request, whose side of a split is wanted.")
def served(model: str, at: datetime | None, key: str | None) -> None:
    """Which release served from when to when; with --key, which one answered a key at a time."""
    from ml_assets.served import tell_served

    tell_served(Settings.from_environment(), model, at, key, click.echo)


@cli.command()
@click.argument("model")
@click.argument("version")
def reproduce(model: str, version: str) -> None:
    """Train a registered version again from what was recorded of it, in a new process, and compare; changes nothing."""
    from ml_assets.reproduce import reproduce as make_again

    if not make_again(Settings.from_environment(), model, version, click.echo):
        sys.exit(1)


@cli.command()
@click.option("--port", default=3000, show_default=True, help="Of the Dagster UI.")
def ui(port: int) -> None:
    """Run the Dagster UI, the daemon with all sensors and schedules, and MLflow's UI, until Ctrl-C."""
    from ml_assets.ui import run_ui

    sys.exit(run_ui(Settings.from_environment(), port))


@cli.command()
@click.option("--port", default=9877, show_default=True, help="Where Prometheus asks.")
def exporter(port: int) -> None:
    """Tell Prometheus about the pipeline: freshness, rows, runs, versions, alarms; until Ctrl-C."""
    from ml_assets.exporter.server import serve as tell_prometheus
    from ml_assets.materialize import prepare_dagster_home

    settings = Settings.from_environment()
    prepare_dagster_home(settings)
    tell_prometheus(settings, port, click.echo)


def main() -> NoReturn:
    """Entry point: an error of ours is one message, not a stack of calls."""
    try:
        cli(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("Stopped. What was finished is kept; the next run does the rest.", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except MlAssetsError as error:
        click.secho(str(error), fg="red", err=True)
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    main()
