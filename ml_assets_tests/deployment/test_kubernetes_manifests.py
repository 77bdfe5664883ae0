"""Manifests are such as an API server takes, by the schemas of Kubernetes and of the custom resources."""

import functools
import json
from dataclasses import replace
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from ml_assets.deployment.kubernetes import manifests
from ml_assets.deployment.kubernetes.kserve import inference_service, kept
from ml_assets.deployment.kubernetes.kserve import predictor as kserve_predictor
from ml_assets.deployment.kubernetes.names import base_of
from ml_assets.deployment.kubernetes.place import KubernetesPlace
from ml_assets.deployment.kubernetes.pods import DRAIN, Packed, pod_spec
from ml_assets.deployment.kubernetes.record import Record
from ml_assets.deployment.kubernetes.seldon import predictor, seldon_deployment
from ml_assets.errors import TargetError
from ml_assets.serving.__main__ import GRACE
from ml_assets.settings import PROJECT_ROOT
from ml_assets_tests.rollouts import START, release

SCHEMAS = PROJECT_ROOT.parent / "shared" / "schemas"
MODEL = "late_deliveries"
BASE = base_of(MODEL)
HTTP = KubernetesPlace("ml", "registry/endpoint:1.0", "https://releases.internal:8443/r", "endpoint", most_replicas=8)
CLAIM = replace(HTTP, releases="pvc://shared/ml/releases")
ONE, TWO = Packed(release(1), "ab" * 32), Packed(release(2), "cd" * 32)
RECORD = Record(ONE.release.name, TWO.release.name, 25, replicas=4, since=START, counted={"uid": {"restarts": 0}})
VERSIONS = ("1.28", "1.37")


def rendered(place: KubernetesPlace) -> list[dict[str, Any]]:
    return [
        manifests.deployment(place, MODEL, BASE, ONE, traffic=True),
        manifests.service(MODEL, BASE, RECORD.to_annotations()),
        manifests.autoscaler(place, BASE, ONE.release),
        manifests.budget(BASE),
        manifests.network_policy(place, BASE),
        kept(MODEL, BASE, RECORD),
    ]


@functools.cache
def checker(name: str) -> jsonschema.Draft202012Validator:
    path = SCHEMAS / f"{name}.schema.json"
    if not path.exists():
        pytest.skip(f"no schemas of custom resources: {SCHEMAS} is absent")
    return jsonschema.Draft202012Validator(json.loads(path.read_bytes()))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("place", [HTTP, CLAIM], ids=["http", "claim"])
def test_built_in_kinds_are_as_kubernetes_has_them(place: KubernetesPlace, version: str) -> None:
    for each in rendered(place):
        kubernetes_validate.validate(each, version, strict=True)


def test_the_schemas_refuse_what_is_misspelt() -> None:
    wrong = manifests.deployment(HTTP, MODEL, BASE, ONE, traffic=True)
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


@pytest.mark.parametrize("shadow", [False, True])
@pytest.mark.parametrize("place", [HTTP, CLAIM], ids=["http", "claim"])
def test_a_seldon_deployment_is_as_its_schema_has_it(place: KubernetesPlace, shadow: bool) -> None:
    schema = checker("seldon-seldondeployment-v1")
    split = [{"traffic": 100, "replicas": 4}, {"traffic": 100, "replicas": 4, "shadow": True}]
    if not shadow:
        split = [{"traffic": 75, "replicas": 4}, {"traffic": 25, "replicas": 1}]
    predictors = [predictor(place, MODEL, BASE, each) | part for each, part in zip((ONE, TWO), split, strict=True)]
    schema.validate(seldon_deployment(MODEL, BASE, predictors, RECORD))
    predictors[0]["trafic"] = 3
    with pytest.raises(jsonschema.ValidationError, match="trafic"):
        schema.validate(seldon_deployment(MODEL, BASE, predictors, RECORD))


KSERVE = replace(HTTP, kind="kserve")


def test_an_inference_service_is_as_its_schema_has_it() -> None:
    schema = checker("kserve-inferenceservice-v1beta1")
    made = kserve_predictor(KSERVE, MODEL, BASE, ONE) | {"canaryTrafficPercent": 25}
    schema.validate(inference_service(MODEL, BASE, made))
    with pytest.raises(jsonschema.ValidationError, match="canaryTrafic"):
        schema.validate(inference_service(MODEL, BASE, made | {"canaryTrafic": 3}))


def test_an_inference_service_asks_knative_for_nothing_that_it_takes_behind_a_flag_only() -> None:
    """Fields that `PodSpecMask`, `ContainerMask` and `SecurityContextMask` of Knative let through by default."""
    made = kserve_predictor(KSERVE, MODEL, BASE, ONE)
    of_kserve = {"labels", "annotations", "minReplicas", "maxReplicas"}
    assert made.keys() - of_kserve == {"automountServiceAccountToken", "enableServiceLinks", "containers", "volumes"}
    assert {kind for volume in made["volumes"] for kind in volume.keys() - {"name"}} == {"emptyDir", "secret"}
    (server,) = made["containers"]
    taken = "name image imagePullPolicy command args env ports livenessProbe readinessProbe resources securityContext "
    assert server.keys() <= {*taken.split(), "terminationMessagePolicy", "volumeMounts"}
    assert server["name"] == "kserve-container", "KServe would call it so, and this would be another's field"
    assert server["ports"] == [{"containerPort": 8080, "protocol": "TCP"}]
    assert {server[each]["httpGet"]["port"] for each in ("livenessProbe", "readinessProbe")} == {8080}
    context = server["securityContext"]
    assert (context["runAsNonRoot"], context["readOnlyRootFilesystem"], context["allowPrivilegeEscalation"]) == (
        True,
        True,
        False,
    )
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert next(each for each in made["volumes"] if each["name"] == "keys")["secret"]["defaultMode"] == 0o444
    assert (made["minReplicas"], made["maxReplicas"]) == (4, 8)
    # Requests come to the container that Knative puts beside it.
    ports = manifests.network_policy(KSERVE, BASE)["spec"]["ingress"][0]["ports"]
    assert {8080, 8012, 9090} <= {each["port"] for each in ports}


def test_releases_differ_in_nothing_that_kserve_hands_on_from_an_inference_service() -> None:
    """Labels and annotations of the object: one that changed would make a revision."""
    one, two = (inference_service(MODEL, BASE, kserve_predictor(KSERVE, MODEL, BASE, each)) for each in (ONE, TWO))
    assert one["metadata"] == two["metadata"]
    assert one["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Serverless"
    labels = [each["spec"]["predictor"]["labels"]["ml-assets/release"] for each in (one, two)]
    assert labels == [ONE.release.name, TWO.release.name]


@pytest.mark.parametrize("place", [HTTP, CLAIM], ids=["http", "claim"])
def test_pods_pass_the_restricted_standard_of_pod_security(place: KubernetesPlace) -> None:
    """What the profile `restricted` asks for, and besides nothing written outside two volumes."""
    spec = pod_spec(place, MODEL, BASE, ONE)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    for each in (*spec["initContainers"], *spec["containers"]):
        context = each["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert each["resources"]["limits"]["memory"] == each["resources"]["requests"]["memory"]
    kinds = {kind for volume in spec["volumes"] for kind in volume.keys() - {"name"}}
    assert kinds <= {"emptyDir", "secret", "persistentVolumeClaim"}
    writable = {
        mount["name"] for each in spec["containers"] for mount in each["volumeMounts"] if not mount.get("readOnly")
    }
    assert writable == {"state"}
    # Requests are finished: the Services forget the pod, and then the server has its own time, before it is killed.
    assert spec["terminationGracePeriodSeconds"] > DRAIN + GRACE
    # A key is nowhere but in the Secret.
    assert not any("value" in each and each["name"][-4:] == "KEYS" for each in spec["containers"][0]["env"])


def test_pods_may_ask_no_more_than_they_need() -> None:
    rules = manifests.network_policy(HTTP, BASE)["spec"]
    assert rules["policyTypes"] == ["Ingress", "Egress"]
    assert [each["port"] for each in rules["ingress"][0]["ports"]] == [8080]
    assert [each["port"] for each in rules["egress"][0]["ports"]] == [53, 53, 6379, 8443]
    of_claim = manifests.network_policy(CLAIM, BASE)["spec"]["egress"][0]["ports"]
    assert [each["port"] for each in of_claim] == [53, 53, 6379]


def test_what_is_selected_is_labelled_and_a_release_is_in_labels_and_annotations() -> None:
    made = manifests.deployment(HTTP, MODEL, BASE, ONE, traffic=True)
    labels = made["spec"]["template"]["metadata"]["labels"]
    selectors = [
        made["spec"]["selector"]["matchLabels"],
        manifests.service(MODEL, BASE, {})["spec"]["selector"],
        manifests.budget(BASE)["spec"]["selector"]["matchLabels"],
        manifests.network_policy(HTTP, BASE)["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(each.items() <= labels.items() for each in selectors)
    idle = manifests.deployment(HTTP, MODEL, BASE, ONE, traffic=False)["spec"]["template"]["metadata"]["labels"]
    assert not selectors[1].items() <= idle.items()
    assert made["metadata"]["labels"]["ml-assets/release"] == ONE.release.name
    assert made["metadata"]["annotations"]["ml-assets/release"] == ONE.release.name
    assert "replicas" not in made["spec"], "or each apply would take them back from whoever scales"


def test_a_record_is_read_as_it_was_written_and_what_was_edited_is_refused() -> None:
    item = manifests.service(MODEL, BASE, RECORD.to_annotations())
    assert Record.of(item) == RECORD
    assert Record.of(None) == Record()
    item["metadata"]["annotations"]["ml-assets/weight"] = "many"
    with pytest.raises(TargetError, match=r"ml-assets/\* of Service late-deliveries are not as ml-assets wrote them"):
        Record.of(item)
