"""OpenStack Swift with its S3 API: a server that is no mock, for a few tests of what moto cannot tell.

It is installed from PyPI into an environment of its own, because its dependencies are nobody else's, and kept in the
user's cache folder; its state lies in the test's folder. One disk, one replica, four processes.
"""

import contextlib
import fcntl
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import requests

from ml_assets_tests.project import free_port
from ml_assets_tests.s3 import S3

VERSION = "2.38.3"
KEY_ID, SECRET = "tests:tester", "testing"
_SERVERS = ("account", "container", "object")
_PROXY = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
swift_dir = {root}
user = {user}
[pipeline:main]
pipeline = catch_errors healthcheck listing_formats s3api tempauth slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
max_bucket_listing = 3
[filter:tempauth]
use = egg:swift#tempauth
user_tests_tester = {secret} .admin
[filter:slo]
use = egg:swift#slo
"""
_BACKEND = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
swift_dir = {root}
devices = {root}/devices
mount_check = false
user = {user}
[pipeline:main]
pipeline = healthcheck {kind}-server
[filter:healthcheck]
use = egg:swift#healthcheck
[app:{kind}-server]
use = egg:swift#{kind}
"""


_RINGS = """
import sys
from swift.common.ring import RingBuilder
root, *servers = sys.argv[1:]
for kind, port in (each.split("=") for each in servers):
    builder = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
    builder.add_dev(dict(id=0, region=1, zone=1, ip="127.0.0.1", port=int(port), device="d1", weight=1))
    builder.rebalance()
    builder.get_ring().save(f"{root}/{kind}.ring.gz")
"""


def programs() -> Path:
    """The `bin` folder of Swift's environment, made where it is missing.

    Raises:
        subprocess.CalledProcessError: if it cannot be installed.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ml-assets-tests"
    cache.mkdir(parents=True, exist_ok=True)
    home = cache / f"swift-{VERSION}-py{sys.version_info.major}{sys.version_info.minor}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "complete").exists():
            uv, python = str(Path(sys.executable).parent / "uv"), str(home / "bin" / "python")
            create = [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(home)]
            subprocess.run(create, check=True, timeout=60)
            install = [uv, "pip", "install", "--quiet", "--python", python, f"swift=={VERSION}", "setuptools<81"]
            subprocess.run(install, check=True, timeout=300)
            (home / "complete").touch()
    return home / "bin"


@contextlib.contextmanager
def swift_server(root: Path) -> Iterator[S3]:
    """Run Swift with its state below `root`, which must lie on a file system with extended attributes."""
    installed = programs()
    user = pwd.getpwuid(os.getuid()).pw_name
    ports = {kind: free_port() for kind in (*_SERVERS, "proxy")}
    (root / "devices" / "d1").mkdir(parents=True)
    (root / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = tests\n")
    (root / "proxy.conf").write_text(_PROXY.format(port=ports["proxy"], root=root, user=user, secret=SECRET))
    for kind in _SERVERS:
        (root / f"{kind}.conf").write_text(_BACKEND.format(kind=kind, port=ports[kind], root=root, user=user))
    servers = [f"{kind}={ports[kind]}" for kind in _SERVERS]
    subprocess.run([str(installed / "python"), "-c", _RINGS, str(root), *servers], check=True, timeout=60)
    with contextlib.ExitStack() as running:
        for kind in ports:
            log = running.enter_context((root / f"{kind}.log").open("wb"))
            command = [str(installed / f"swift-{kind}-server"), str(root / f"{kind}.conf")]
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            running.callback(process.wait, 10)
            running.callback(process.terminate)
        for port in ports.values():
            _wait(f"http://127.0.0.1:{port}/healthcheck", root)
        yield S3(f"http://127.0.0.1:{ports['proxy']}", KEY_ID, SECRET)


def _wait(url: str, root: Path) -> None:
    """Until the proxy and the servers behind it answer.

    Raises:
        RuntimeError: with what they wrote if they do not within 30 s.
    """
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.RequestException):
            if requests.get(url, timeout=2).ok:
                return
        time.sleep(0.1)
    written = "\n".join(log.read_text()[-2000:] for log in sorted(root.glob("*.log")))
    raise RuntimeError(f"Swift does not answer at {url}:\n{written}")
