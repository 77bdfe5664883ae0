"""Rollouts in a cluster, over its HTTP API: whole, cut off at each call, beside others, and when the API fails."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from ml_assets.deployment.decision import Limits
from ml_assets.deployment.kubernetes import pods
from ml_assets.deployment.kubernetes.cluster import Cluster
from ml_assets.deployment.kubernetes.kserve import KServeTarget
from ml_assets.deployment.kubernetes.names import base_of
from ml_assets.deployment.kubernetes.place import KubernetesPlace
from ml_assets.deployment.kubernetes.plain import PlainTarget
from ml_assets.deployment.kubernetes.seldon import SeldonTarget
from ml_assets.deployment.kubernetes.target import KINDS, target_of
from ml_assets.deployment.probing import Patience
from ml_assets.deployment.probing_elsewhere import probe_cluster
from ml_assets.deployment.reconcile import carry_on
from ml_assets.deployment.rollout import Phase, Plan
from ml_assets.deployment.targets import Release
from ml_assets.errors import SettingsError, TargetError, TargetUnavailableError
from ml_assets_tests.kubernetes_api import DEPLOYMENTS, KSERVE, PODS, RESOURCES, SELDON, SERVICES, ApiServer, api_server
from ml_assets_tests.rollouts import Chaos, Clock, Killed, MemoryJournal, MemoryRegistry, release

MODEL = "late_deliveries"
BASE = "late-deliveries"
PLAN = Plan(
    steps=(20, 50, 100),
    bake=timedelta(minutes=1),
    requests=100,
    limit=timedelta(hours=1),
    limits=Limits(errors=0.2, scores=0.5),
)
ONE, TWO, THREE = release(1), release(2), release(3)


class KillableCluster(Cluster):
    """A cluster, whose caller dies where it is told to: before a call that changes something, or after."""

    chaos = Chaos()

    def _ask(self, method: str, *rest: Any, **named: Any) -> Any:
        if method == "GET":
            return super()._ask(method, *rest, **named)
        self.chaos.here()
        answer = super()._ask(method, *rest, **named)
        self.chaos.here()
        return answer


@dataclass
class World:
    """A model in a cluster, with its journal and registry."""

    api: ApiServer
    place: KubernetesPlace
    model: str = MODEL
    chaos: Chaos = field(default_factory=Chaos)
    clock: Clock = field(default_factory=Clock)
    registry: MemoryRegistry = field(default_factory=MemoryRegistry)
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    approved: Release | None = None
    plan: Plan = PLAN

    def target(self) -> PlainTarget | SeldonTarget | KServeTarget:
        target = target_of(self.place, self.model, Path("/nowhere"), "the key")
        assert isinstance(target, PlainTarget | SeldonTarget | KServeTarget)
        cluster = KillableCluster(self.place)
        cluster.chaos = self.chaos
        target.__dict__["cluster"] = cluster
        target.now = self.clock
        return target

    def carry_on(self) -> str:
        wait = carry_on(self.target(), self.journal, self.registry, lambda: self.approved, self.plan, now=self.clock)
        return wait.reason

    def serve(self, one: Release, **options: Any) -> None:
        self.approved = one
        self.carry_on()
        assert self.target().describe().alone(one.name)

    def until_over(self, *, asked: Callable[[], None], most: int = 12) -> None:
        for _ in range(most):
            self.carry_on()
            if self.journal.kept[-1].phase.over:
                return
            asked()
            self.clock.later(minutes=2)
        raise AssertionError(self.carry_on())

    @property
    def phase(self) -> Phase:
        return self.journal.kept[-1].phase


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, ApiServer]]:
    with api_server() as found:
        yield found


@pytest.fixture
def api(cluster: tuple[str, ApiServer]) -> Iterator[ApiServer]:
    api = cluster[1]
    yield api
    api.delay, api.cut, api.watches = 0.0, None, 0
    for each in (api.refuses, api.unpullable, api.faults, api.asked, api.answering, api.owners, api.served):
        each.clear()
    api.revisions.clear()
    for each in list(api.objects):
        del api.objects[each]


@pytest.fixture
def place(cluster: tuple[str, ApiServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KubernetesPlace:
    # Which bytes a release has is shown by test_kubernetes_manifests.
    monkeypatch.setattr(pods.Packed, "of", classmethod(lambda cls, releases, model, one: cls(one, "ab" * 32)))
    config = tmp_path / "kubeconfig"
    config.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": cluster[0]}}],
                "users": [{"name": "u", "user": {"token": "of the user"}}],
                "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "test",
            }
        )
    )
    return KubernetesPlace(
        "ml", "registry/endpoint:1.0", "https://releases/r", "endpoint", kubeconfig=config, patience=0.3
    )


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, api: ApiServer, place: KubernetesPlace) -> World:
    return World(api, replace(place, kind=request.param))


@pytest.fixture
def plain(api: ApiServer, place: KubernetesPlace) -> World:
    return World(api, place)


def both_answer(world: World, **challengers: Any) -> Callable[[], None]:
    def answer() -> None:
        world.api.answer(ONE.name, 600)
        world.api.answer(TWO.name, 600, **challengers)

    return answer


def test_a_good_challenger_gets_its_traffic_step_by_step_and_then_all_of_it(world: World) -> None:
    world.serve(ONE)
    world.approved = TWO
    world.until_over(asked=both_answer(world))
    assert world.phase is Phase.PROMOTED
    described = world.target().describe()
    assert described.alone(TWO.name)
    assert described.ready
    assert world.registry.alias == "2"
    weights = [each.serves.weight for each in world.journal.kept if each.phase is Phase.BAKING]
    assert weights == [0, 0] or weights == [20, 50]
    steps = world.journal.kept[-1].observed
    # What was counted before a step began is not counted in it.
    assert [(each.champion.requests, each.challenger.requests) for each in steps] == [(600, 600), (600, 600)]
    assert {pod["metadata"]["labels"]["ml-assets/release"] for pod in world.api.items(PODS).values()} == {TWO.name}


def test_a_challenger_with_errors_is_rolled_back_and_the_champion_keeps_its_pods(world: World) -> None:
    world.serve(ONE)
    kept = set(world.api.items(PODS))
    world.approved = TWO
    world.until_over(asked=both_answer(world, errors=290))
    assert world.phase is Phase.ROLLED_BACK
    assert "errors" in world.journal.kept[-1].reason
    assert world.target().describe().alone(ONE.name)
    assert world.registry.alias == "1"
    if world.place.kind != "kserve":  # there they are, as it cannot be otherwise, but not before others answer
        assert kept & set(world.api.items(PODS)), "not all of the champion's pods were replaced"
    asked = len(world.api.asked)
    assert "is not rolled out again" in world.carry_on()
    assert not [each for each in world.api.asked[asked:] if not each.startswith("GET")]


def test_pods_are_there_before_others_go(plain: World) -> None:
    plain.place = replace(plain.place, patience=5.0)
    plain.serve(ONE)
    plain.api.answering.clear()
    plain.api.delay = 0.1
    plain.target().stage(TWO)
    for weight in (25, 50):
        plain.target().shift(TWO, weight, "", shadow=False)
    plain.target().promote(TWO)
    assert plain.target().describe().alone(TWO.name)
    assert min(plain.api.answering) == plain.place.replicas
    assert len(plain.api.answering) > 5


def test_seldon_keeps_a_predictor_until_pods_of_the_next_one_answer(api: ApiServer, place: KubernetesPlace) -> None:
    world = World(api, replace(place, kind="seldon", patience=5.0))
    world.serve(ONE)
    world.target().stage(TWO)
    api.delay = math.inf
    world.place = replace(world.place, patience=0.1)
    world.target().promote(TWO)  # three of its four pods are still to come
    described = world.target().describe()
    assert (described.stable, described.challenger) == (ONE.name, TWO.name)
    assert [each["traffic"] for each in api.items(SELDON)[BASE]["spec"]["predictors"]] == [0, 100]
    api.bring_up()
    world.target().promote(TWO)
    assert world.target().describe().alone(TWO.name)


def kserve_of(api: ApiServer, place: KubernetesPlace) -> World:
    return World(api, replace(place, kind="kserve", patience=0.1))


def split_of(api: ApiServer) -> dict[str, int]:
    """The traffic of KServe's revisions, by the number of each."""
    return _split(api.items(KSERVE)[BASE])


def _split(item: dict[str, Any]) -> dict[str, int]:
    traffic = item.get("status", {}).get("components", {}).get("predictor", {}).get("traffic", [])
    return {each["revisionName"][-1]: each["percent"] for each in traffic}


def test_kserve_splits_the_traffic_of_two_revisions_and_makes_no_other(api: ApiServer, place: KubernetesPlace) -> None:
    world = kserve_of(api, place)
    world.serve(ONE)
    target = world.target()
    target.stage(TWO)
    for weight in (5, 25):
        target.shift(TWO, weight, "", shadow=False)
    target.promote(TWO)
    assert "canaryTrafficPercent" not in api.items(KSERVE)[BASE]["spec"]["predictor"]
    target.rollback(TWO)  # what serves already: KServe would take a share for a way back to the one before
    assert target.describe().alone(TWO.name)
    seen = [split for split, _ in itertools.groupby(map(_split, api.objects[KSERVE, "ml", BASE].history)) if split]
    assert seen == [{"1": 100}, {"2": 0, "1": 100}, {"2": 5, "1": 95}, {"2": 25, "1": 75}, {"2": 100}]


def test_kserve_gives_the_champion_all_traffic_at_once_and_a_new_revision_when_it_is_ready(
    api: ApiServer, place: KubernetesPlace
) -> None:
    world = kserve_of(api, place)
    world.serve(ONE)
    world.target().stage(TWO)
    world.target().shift(TWO, 50, "", shadow=False)
    api.unpullable.add("registry/endpoint:2.0")  # what a champion that is applied anew would run
    world.place = replace(world.place, image="registry/endpoint:2.0")
    world.target().rollback(ONE)
    assert split_of(api) == {"2": 0, "1": 100}
    assert world.target().describe().alone(ONE.name)
    assert world.target().describe().ready
    api.unpullable.clear()
    api.touch(KSERVE, BASE)
    world.target().tidy()
    assert split_of(api) == {"3": 100}
    assert world.target().describe().alone(ONE.name)
    assert {pod["metadata"]["labels"]["ml-assets/release"] for pod in api.items(PODS).values()} == {ONE.name}


def test_kserve_keeps_who_serves_until_the_one_before_is_back(api: ApiServer, place: KubernetesPlace) -> None:
    world = kserve_of(api, place)
    world.serve(ONE)
    world.target().promote(TWO)
    api.unpullable.add("registry/endpoint:2.0")
    world.place = replace(world.place, image="registry/endpoint:2.0")
    world.target().rollback(ONE)
    assert split_of(api)["2"] == 100
    described = world.target().describe()
    assert (described.stable, described.challenger, described.weight, described.ready) == (TWO.name, ONE.name, 0, False)
    api.unpullable.clear()
    api.touch(KSERVE, BASE)
    world.target().rollback(ONE)
    assert split_of(api) == {"3": 100}
    assert world.target().describe().alone(ONE.name)


def test_kserve_in_its_raw_mode_is_refused(api: ApiServer, place: KubernetesPlace) -> None:
    world = kserve_of(api, place)
    world.serve(ONE)
    api.edit(KSERVE, BASE, ("status", "deploymentMode"), "RawDeployment", "kserve")
    with pytest.raises(TargetError, match=r"in its mode RawDeployment, which does not split.*install Knative Serving"):
        world.target().stage(TWO)
    assert {each["metadata"]["labels"]["ml-assets/release"] for each in api.items(PODS).values()} == {ONE.name}


def test_the_same_release_again_is_no_call_that_changes_anything(world: World) -> None:
    world.serve(ONE)
    before = [world.api.items(each) for each in RESOURCES]
    asked = len(world.api.asked)
    assert world.carry_on() == f"{ONE.name} serves"
    assert not [each for each in world.api.asked[asked:] if not each.startswith("GET")]
    world.target().promote(ONE)
    world.target().stage(ONE)
    after = [world.api.items(each) for each in RESOURCES]
    assert [_without_since(each) for each in after] == [_without_since(each) for each in before]


def _without_since(items: dict[str, Any]) -> dict[str, Any]:
    for item in items.values():
        item["metadata"].get("annotations", {}).pop("ml-assets/since", None)
    return items


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("errors", [0, 290], ids=["promoted", "rolled back"])
def test_a_rollout_that_is_killed_before_or_after_any_call_ends_as_if_it_had_not_been(
    kind: Any, errors: int, api: ApiServer, place: KubernetesPlace
) -> None:
    """Killed after each call of a whole rollout that changes something, and then before the next but one."""
    owner = ONE if errors else TWO
    begun = World(api, replace(place, kind=kind), plan=replace(PLAN, steps=(50, 100)))
    begun.serve(ONE)
    kept = api.kept()

    def run(crashes: list[int]) -> int:
        api.restore(kept)
        world = replace(begun, chaos=Chaos(), journal=MemoryJournal(kept=list(begun.journal.kept)), approved=TWO)
        world.registry = MemoryRegistry(alias="1")
        world.chaos.arm(crashes)
        answer = both_answer(world, errors=errors)
        for _ in range(12):
            with contextlib.suppress(Killed):
                world.carry_on()
                if world.phase.over and world.journal.kept[-1].number == 2:
                    break
            answer()
            world.clock.later(minutes=2)
        described = world.target().describe()
        assert described.alone(owner.name), (crashes, described)
        assert world.registry.alias == owner.version
        world.carry_on()  # and at rest nothing of the other one is left
        assert {pod["metadata"]["labels"]["ml-assets/release"] for pod in api.items(PODS).values()} == {owner.name}
        assert set(api.items(DEPLOYMENTS)) <= {f"{BASE}-{owner.name}"}
        return world.chaos.moment

    moments = run([])
    assert moments > 10
    for at in range(2, moments + 1, 2):  # after each call, and then before one
        run([at, at + 3])
    begun.target().rollback(None)
    assert not any(api.items(each) for each in RESOURCES)


def test_two_models_in_one_namespace_do_not_touch_each_other(world: World) -> None:
    other = World(world.api, world.place, model="late")
    other.serve(ONE)
    before = [
        {name: item for name, item in world.api.items(each).items() if not name.startswith(BASE)} for each in RESOURCES
    ]
    world.serve(TWO)
    world.approved = THREE
    world.carry_on()
    world.target().shift(THREE, 50, "", shadow=False)
    world.target().rollback(TWO)
    world.target().tidy()
    world.target().rollback(None)
    assert [world.api.items(each) for each in RESOURCES] == before
    assert other.target().describe().alone(ONE.name)
    assert not world.target().describe().stable


def test_what_others_made_is_left_alone(plain: World) -> None:
    mine = {"kind": "Service", "metadata": {"name": BASE, "namespace": "ml", "uid": "u", "labels": {"app": "shop"}}}
    plain.api.objects[SERVICES, "ml", BASE] = mine
    with pytest.raises(TargetError, match=f"Service {BASE} of namespace ml was not made by ml-assets for this model"):
        plain.target().stage(ONE)
    plain.target().rollback(None)
    assert plain.api.items(SERVICES) == {BASE: mine}


def test_a_field_that_somebody_else_has_changed_is_a_conflict_that_names_them(plain: World) -> None:
    plain.serve(ONE)
    name = f"{BASE}-{ONE.name}"
    plain.api.edit(DEPLOYMENTS, name, ("spec", "progressDeadlineSeconds"), 20, "kubectl-edit")
    with pytest.raises(
        TargetError, match=r'progressDeadlineSeconds: conflict with "kubectl-edit".*Undo that'
    ) as caught:
        plain.target().promote(ONE)
    assert not isinstance(caught.value, TargetUnavailableError)
    assert plain.api.items(DEPLOYMENTS)[name]["spec"]["progressDeadlineSeconds"] == 20


def test_replicas_that_an_autoscaler_has_set_are_no_conflict(plain: World) -> None:
    plain.place = replace(plain.place, most_replicas=12)
    plain.serve(ONE)
    name = f"{BASE}-{ONE.name}"
    scalers = next(each for each in RESOURCES if each.plural == "horizontalpodautoscalers")
    assert plain.api.items(scalers)[BASE]["spec"]["scaleTargetRef"]["name"] == name
    plain.api.edit(DEPLOYMENTS, name, ("spec", "replicas"), 10, "kube-controller-manager")
    plain.approved = TWO
    plain.carry_on()
    # Ten pods were needed, so ten they are together; the autoscaler would move the weights, and is away meanwhile.
    replicas = {name: each["spec"]["replicas"] for name, each in plain.api.items(DEPLOYMENTS).items()}
    assert replicas == {name: 8, f"{BASE}-{TWO.name}": 2}
    assert not plain.api.items(scalers)
    plain.target().promote(TWO)
    assert plain.api.items(scalers)[BASE]["spec"]["scaleTargetRef"]["name"] == f"{BASE}-{TWO.name}"


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ((429, {"Retry-After": "7"}), TargetUnavailableError, "throttled, for 7 s"),
        ((503, {}), TargetUnavailableError, "503: fault 503"),
        ((0, {}), TargetUnavailableError, "does not answer"),
        ((403, {}), TargetError, "403: fault 403"),
        ((422, {}), TargetError, "422: fault 422"),
    ],
)
def test_what_may_pass_is_told_from_what_will_not(
    fault: tuple[int, dict[str, str]], error: type[TargetError], said: str, plain: World
) -> None:
    plain.api.faults.append(fault)
    with pytest.raises(TargetError, match=said) as caught:
        plain.target().stage(ONE)
    assert type(caught.value) is error
    plain.serve(ONE)


def test_a_throttled_call_in_the_middle_is_made_good_by_the_next_tick(plain: World) -> None:
    plain.serve(ONE)
    plain.approved = TWO
    for calls in range(1, 40):
        asked = len(plain.api.asked)

        class Throttling(list[Any]):
            def __bool__(self) -> bool:
                return len(plain.api.asked) == asked + calls  # noqa: B023

            def pop(self, _: Any = 0) -> Any:
                return 429, {"Retry-After": "1"}

        plain.api.faults = Throttling()
        with contextlib.suppress(TargetUnavailableError):
            plain.carry_on()
            break
    plain.api.faults = []
    described = plain.target().describe()
    assert (described.stable, described.challenger, described.weight) == (ONE.name, TWO.name, 20)


def test_a_watch_that_is_closed_is_begun_anew(plain: World) -> None:
    plain.place = replace(plain.place, patience=10.0)
    plain.api.delay, plain.api.cut = 0.4, 1
    plain.serve(ONE)
    assert plain.api.watches > 1


def test_pods_that_take_long_are_waited_for_at_the_next_tick(plain: World) -> None:
    plain.api.delay = math.inf
    plain.approved = ONE
    assert plain.carry_on() == "the target is changing"
    assert plain.phase is Phase.STAGING
    plain.api.bring_up()
    plain.api.delay = 0.0
    plain.carry_on()
    assert plain.phase is Phase.PROMOTED


def test_a_release_that_its_server_refuses_is_rolled_back_with_what_it_says(world: World) -> None:
    world.serve(ONE)
    world.api.refuses[TWO.name] = "ReleaseError: row 3 is answered otherwise than recorded"
    world.approved = TWO
    world.carry_on()
    assert world.phase is Phase.ROLLED_BACK
    assert "row 3 is answered otherwise than recorded" in world.journal.kept[-1].reason
    assert world.target().describe().alone(ONE.name)


def test_pods_that_never_come_up_are_given_up_with_what_keeps_them(plain: World) -> None:
    plain.serve(ONE)
    plain.place = replace(plain.place, image="registry/endpoint:gone")
    plain.api.unpullable.add(plain.place.image)
    plain.approved = TWO
    plain.carry_on()
    assert plain.phase is Phase.ROLLED_BACK
    assert "timed out progressing. Container server of pod" in plain.journal.kept[-1].reason
    assert "ImagePullBackOff" in plain.journal.kept[-1].reason


def test_a_container_that_dies_of_requests_counts_as_failed_requests(plain: World) -> None:
    plain.serve(ONE)
    plain.approved = TWO
    plain.carry_on()
    plain.api.answer(TWO.name, 50)
    plain.api.restart(TWO.name)
    plain.api.answer(TWO.name, 3)
    seen = plain.target().observe(plain.clock.now, shadow=False).challenger
    assert (seen.requests, seen.errors) == (4, 1)
    plain.api.restart(TWO.name, ready=False)
    seen = plain.target().observe(plain.clock.now, shadow=False).challenger
    assert (seen.requests, seen.errors) == (2, 2)


def test_a_plain_service_has_no_shadow_step_and_seldon_copies_every_request(
    plain: World, place: KubernetesPlace
) -> None:
    plain.serve(ONE)
    plain.target().stage(TWO)
    with pytest.raises(TargetError, match=r"plain Services cannot copy requests.*kind: seldon"):
        plain.target().shift(TWO, 0, "", shadow=True)
    plain.target().rollback(None)
    kserve = World(plain.api, replace(place, kind="kserve"))
    with pytest.raises(TargetError, match=r"KServe cannot copy requests.*kind: seldon"):
        kserve.target().shift(TWO, 0, "", shadow=True)
    seldon = World(plain.api, replace(place, kind="seldon"), plan=replace(PLAN, steps=(0, 100)))
    seldon.serve(ONE)
    seldon.approved = TWO
    seldon.carry_on()
    assert seldon.target().describe().shadow
    one, two = seldon.api.items(SELDON)[BASE]["spec"]["predictors"]
    assert (one["traffic"], two["traffic"], two["shadow"]) == (100, 100, True)
    seldon.until_over(asked=both_answer(seldon))
    assert seldon.phase is Phase.PROMOTED
    assert seldon.journal.kept[-1].observed[0].shadow


def test_the_share_that_replicas_come_to_is_said(plain: World) -> None:
    plain.serve(ONE)
    plain.target().stage(TWO)
    plain.target().shift(TWO, 5, "", shadow=False)
    described = plain.target().describe()
    assert (described.weight, described.share) == (5, 25.0)


def test_a_wrong_key_is_said_to_be_one(plain: World) -> None:
    plain.serve(ONE)
    target = plain.target()
    target.key = "another"
    with pytest.raises(TargetError, match=r"does not know the key.*`keys` of the Secret endpoint"):
        target.observe(plain.clock.now, shadow=False)
    assert "another" not in repr(target)


def test_a_cluster_that_is_not_known_is_said_to_be_none(place: KubernetesPlace, tmp_path: Path) -> None:
    target = PlainTarget(replace(place, context="prod"), MODEL, tmp_path)
    with pytest.raises(TargetError, match=r"no cluster can be asked.*kubeconfig.*context 'prod'"):
        target.describe()


def test_names_are_such_as_kubernetes_takes_and_never_those_of_another_model() -> None:
    long = "a" * 50
    names = {model: base_of(model) for model in (MODEL, "a_", "a", long, f"{long}b")}
    assert names[MODEL] == BASE
    assert len(set(names.values())) == len(names)
    assert all(len(each) <= 40 and not each.endswith("-") for each in names.values())


def test_all_that_is_wrong_with_a_place_is_said_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        KubernetesPlace(
            "ML", "endpoint", "s3://bucket/releases", "endpoint", replicas=0, most_replicas=200, memory="much"
        )
    for part in ("namespace='ML'", "image='endpoint'", "mount the bucket as a claim", "replicas=0", "memory='much'"):
        assert part in str(caught.value)
    with pytest.raises(SettingsError, match=r"pvc://shared/ml': Knative.*take https"):
        KubernetesPlace("ml", "endpoint:1", "pvc://shared/ml", "endpoint", kind="kserve")
    with pytest.raises(SettingsError, match="without user and password") as secret:
        KubernetesPlace("ml", "endpoint:1", "https://user:hidden@host/releases", "endpoint")
    assert "hidden" not in str(secret.value)


def test_a_pod_of_what_serves_is_probed(world: World) -> None:
    def found(*names: str, **patience: float) -> tuple[str, str]:
        probe = probe_cluster(world.target(), set(names), Patience(**patience))
        return probe.found, probe.reason

    assert found(ONE.name)[0] == "dead"
    world.serve(ONE)
    assert found(ONE.name) == ("good", "")
    assert found(ONE.name, slow=0.0)[0] == "slow"
    assert "0 pod(s) of 2-" in found(TWO.name)[1]
    world.api.refuses[ONE.name] = "its manifest was changed"
    assert found(ONE.name)[0] == "wrong", "a pod that is ready and serves something else"
