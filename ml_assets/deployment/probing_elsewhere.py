"""Probes of what serves on SageMaker and in clusters.

SageMaker's endpoint is asked for golden rows. In a cluster a ready pod of the release is asked for its health through
the API server; for golden rows the rights of `pods/proxy` would have to include `create`, and a pod is ready only once
it has answered them.
"""

import json
import time
from collections.abc import Collection
from datetime import UTC, datetime

import msgspec

from ml_assets.deployment.kubernetes.counts import answers
from ml_assets.deployment.kubernetes.names import RELEASE
from ml_assets.deployment.kubernetes.namespaced import Namespaced
from ml_assets.deployment.probing import Patience
from ml_assets.deployment.sagemaker import STABLE, SageMakerTarget
from ml_assets.errors import ReleaseError, TargetError, TargetUnavailableError
from ml_assets.probes import Probe
from ml_assets.serving.bundle import GOLDEN
from ml_assets.serving.ids import PROBE_ID
from ml_assets.serving.scorer import require_equal


def probe_sagemaker(target: SageMakerTarget, may_serve: Collection[str], patience: Patience) -> Probe:
    """Ask the endpoint for the golden rows of what it is said to serve.

    The request's `InferenceId` is `PROBE_ID`, by which it is known where data is captured.

    Raises:
        TargetUnavailableError: throttled, so that it says nothing about the endpoint.
        TargetError: if AWS refuses the caller, or the release is not on this machine.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import ClientError, ConnectTimeoutError, HTTPClientError, ReadTimeoutError

    at, serves = datetime.now(UTC), target.describe().stable
    if serves is None:
        return Probe("dead", None, f"{target.address} serves nothing", at)
    if serves not in may_serve:
        return Probe("wrong", None, f"{serves} serves, and {' or '.join(sorted(may_serve))} is to", at)
    try:
        golden = msgspec.json.decode((target.releases / target.model / serves / GOLDEN).read_bytes())
    except OSError as error:
        raise TargetError(f"{target.model}: {error.filename} is not here, so nobody can say what is right") from None
    body = {"rows": golden["rows"]} | ({} if golden["looked_up"] is None else {"looked_up": golden["looked_up"]})
    config = Config(connect_timeout=patience.timeout, read_timeout=patience.timeout, retries={"total_max_attempts": 1})
    client = boto3.Session().client("sagemaker-runtime", endpoint_url=target.account.endpoint_url, config=config)
    begun = time.monotonic()
    try:
        answer = client.invoke_endpoint(
            EndpointName=target.name,
            TargetVariant=STABLE,
            ContentType="application/json",
            Accept="application/json",
            InferenceId=PROBE_ID,
            Body=msgspec.json.encode(body),
        )
        said = json.loads(answer["Body"].read())
        seconds = time.monotonic() - begun
        require_equal(golden["answers"], said["predictions"], f"{target.model} {serves}")
    except (ConnectTimeoutError, ReadTimeoutError):
        return Probe("hanging", None, f"{target.address} gave no answer in {patience.timeout:g} s", at)
    except HTTPClientError as error:
        return Probe("dead", None, f"{target.address} cannot be reached ({type(error).__name__})", at)
    except ClientError as error:
        return _refused(target.address, error.response.get("Error", {}), at)
    except (ReleaseError, ValueError, KeyError, TypeError) as error:
        return Probe("wrong", None, str(error)[:300], at)
    return _answered(target.address, seconds, patience, at)


def _refused(address: str, error: dict[str, str], at: datetime) -> Probe:
    code, message = error.get("Code", ""), error.get("Message", "")[:300]
    if code in ("ThrottlingException", "Throttling", "TooManyRequestsException"):
        raise TargetUnavailableError(f"{address}: {code}: {message}")
    if code in ("AccessDeniedException", "ExpiredTokenException", "UnrecognizedClientException"):
        raise TargetError(f"{address} may not be asked: {code}: {message}")
    if code == "ModelError":
        return Probe("hanging" if "timed out" in message else "wrong", None, f"{address}: {message}", at)
    return Probe("dead", None, f"{address}: {code}: {message}", at)


def probe_cluster(target: Namespaced, may_serve: Collection[str], patience: Patience) -> Probe:
    """Ask one ready pod of what is to serve for its health.

    Raises:
        TargetUnavailableError: if the cluster's API does not answer, which says nothing about the pods.
        TargetError: if it refuses the caller.
    """
    at = datetime.now(UTC)
    pods = [pod for pod in target.pods() if pod["metadata"]["labels"].get(RELEASE) in may_serve]
    ready = [pod for pod in pods if answers(pod)]
    if not ready:
        said = f"{len(pods)} pod(s) of {' or '.join(sorted(may_serve))}, and none is ready"
        return Probe("dead", None, f"{target.base} in namespace {target.place.namespace} has {said}", at)
    pod, begun = ready[0]["metadata"], time.monotonic()
    try:
        health = json.loads(target.cluster.of_pod(pod["name"], "/health", read=patience.timeout))
    except TargetUnavailableError as error:
        found = "hanging" if "timed out" in str(error) or time.monotonic() - begun >= patience.timeout else "dead"
        return Probe(found, None, f"pod {pod['name']}: {error}"[:300], at)  # type: ignore[arg-type]
    except ValueError:
        return Probe("wrong", None, f"pod {pod['name']} gives no JSON at /health", at)
    serves = health.get("models", {}).get(target.model, {}).get("release")
    if serves != pod["labels"][RELEASE]:
        return Probe("wrong", None, f"pod {pod['name']} serves {serves}, and not {pod['labels'][RELEASE]}", at)
    return _answered(f"pod {pod['name']}", time.monotonic() - begun, patience, at)


def _answered(who: str, seconds: float, patience: Patience, at: datetime) -> Probe:
    milliseconds = round(seconds * 1000, 3)
    if seconds <= patience.slow:
        return Probe("good", milliseconds, "", at)
    return Probe(
        "slow", milliseconds, f"{who} takes {milliseconds:.0f} ms, more than {patience.slow * 1000:.0f} ms", at
    )
