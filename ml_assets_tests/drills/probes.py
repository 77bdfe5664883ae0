"""An endpoint that is dead, hangs, answers wrongly or slowly is noticed within two probe intervals, by the real daemon.

.venv/bin/python -W ignore -m ml_assets_tests.drills.probes

The daemon runs with the sensors as they are, apart from the one that would bring the server back, and with the default
interval of 30 s. Each fault begins right after a good probe, which is the worst moment. Fails if the table `probes`
does not say so within 60 s, by the right name, or if the webhook does not get one message of it and one of its end.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable

import requests

from ml_assets.probes import read_probes
from ml_assets_tests.alerts.receivers import Hooks
from ml_assets_tests.drills.small import NAME, release_of, small_project
from ml_assets_tests.endpoint import brought
from ml_assets_tests.project import Project, free_port, wait_until
from ml_assets_tests.proxy import proxy_before

INTERVAL = 30.0


def probed(project: Project) -> float:
    """Probes that the server has counted."""
    known = project.target.known()
    assert known is not None
    text = requests.get(f"http://127.0.0.1:{known['port']}/metrics", timeout=5).text
    found = [line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith("ml_assets_probes_total")]
    return sum(map(float, found))


def after_a_probe(project: Project) -> None:
    """Wait until a probe has just been answered."""
    before = probed(project)
    while probed(project) <= before:
        time.sleep(0.1)


def states(project: Project) -> list[str]:
    return read_probes(project.lake, NAME)["state"].to_list()


def forget(project: Project) -> None:
    """An outbox of its own for each fault: soon after another one it would be the same alert, and told as such."""
    with project.lake.alone("_alerts", "outbox"):
        shutil.rmtree(project.lake.path("_alerts", "outbox"))


def drill(project: Project, hooks: Hooks, found: str, fault: Callable[[], None]) -> Callable[[], None]:
    """Let a fault begin and say when it was noticed; gives what waits for its end."""
    after_a_probe(project)
    rows, told = len(states(project)), len(hooks.got)
    fault()
    began = time.monotonic()
    wait_until(lambda: [each for each in states(project)[rows:] if each != "good"], 120, f"{found} is noticed")
    noticed = time.monotonic() - began
    assert [each for each in states(project)[rows:] if each != "good"] == [found]
    wait_until(lambda: len(hooks.got) > told, 60, "the webhook is told")
    arrived = time.monotonic() - began
    reason = hooks.got[-1][2]["title"]
    print(f"{found:<8} noticed after {noticed:4.1f} s, told after {arrived:4.1f} s: {reason}", flush=True)
    assert noticed < 2 * INTERVAL, f"{noticed:.1f} s"

    def over() -> None:
        ended = time.monotonic()
        wait_until(lambda: len(hooks.got) > told + 1, 120, "the webhook is told that it is over")
        events = [body["event"] for _, _, body in hooks.got[told:]]
        assert events == ["opened", "recovered"], events
        print(f"         over, told after {time.monotonic() - ended:4.1f} s", flush=True)

    return over


def main() -> int:
    """Run the drill."""
    hooks = Hooks(free_port())
    with small_project() as (project, _), hooks.running():
        project.variables["ML_ASSETS_ALERTS"] = hooks.url()
        done = project.run("dagster", "sensor", "stop", f"{NAME}_retraining", "-w", "workspace.yaml")
        assert done.returncode == 0, done.stderr
        brought(project.target, NAME, release_of(project).name)
        known = project.target.known()
        assert known is not None
        address = project.settings.home / "endpoint.json"

        def listen(port: int) -> None:
            address.write_text(f'{{"pid": {known["pid"]}, "port": {port}}}')

        try:
            with proxy_before(known["port"]) as proxy, project.services():
                wait_until(lambda: states(project), 180, "the daemon probes")
                listen(proxy.port)
                over = drill(project, hooks, "wrong", lambda: setattr(proxy, "replaced", (b'"label"', b'"l"')))
                proxy.replaced = b"", b""
                over()
                forget(project)
                over = drill(project, hooks, "slow", lambda: setattr(proxy, "delay", 1.5))
                proxy.delay = 0
                over()
                forget(project)
                listen(known["port"])
                over = drill(project, hooks, "hanging", lambda: os.kill(known["pid"], signal.SIGSTOP))
                os.kill(known["pid"], signal.SIGCONT)
                over()
                forget(project)
                over = drill(project, hooks, "dead", lambda: os.kill(known["pid"], signal.SIGKILL))
                project.target.start()
                over()
        finally:
            project.target.stop()
    kinds = [(body["event"], body["kind"]) for _, _, body in hooks.got]
    print(f"{len(kinds)} messages in all: {kinds}")
    assert {kind for _, kind in kinds} == {"availability"}, "nothing else was raised"
    return 0


if __name__ == "__main__":
    sys.exit(main())
