"""moto's server as SageMaker, with what moto lacks: `UpdateEndpoint`, names that are taken, an endpoint that takes its
time, goes back to its old configuration or fails, and variants that answer with the release uploaded for them.

Every request is held against botocore's own description of the service and against `aws_requests.faults`.
"""

import contextlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import botocore.session
import msgspec
from botocore.validate import ParamValidator
from moto.core.responses import ActionResult
from moto.sagemaker.exceptions import AWSValidationException
from moto.sagemaker.models import SageMakerModelBackend
from moto.sagemaker.responses import SageMakerResponse
from moto.sagemakerruntime.responses import SageMakerRuntimeResponse

from ml_assets.deployment.aws_requests import faults
from ml_assets.serving.bundle import GOLDEN, REFERENCE, SCHEMA, Manifest, write_manifest
from ml_assets_tests.s3 import ACCOUNT, S3, s3_server

ROLE, IMAGE = f"arn:aws:iam::{ACCOUNT}:role/ml-assets", f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/ml-assets:1"
_DESCRIPTION = botocore.session.get_session().get_service_model("sagemaker")


@dataclass
class SageMaker:
    """What the stand-in does, and what it was asked.

    Attributes:
        updates: what becomes of the next updates of an endpoint: `goes back`, `fails`; done otherwise.
        takes: descriptions of an endpoint during which it is updating.
        wrong: releases that answer their golden rows otherwise.
    """

    s3: S3
    updates: list[str] = field(default_factory=list)
    takes: int = 0
    wrong: set[str] = field(default_factory=set)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    _changing: int = 0

    def changes(self) -> list[str]:
        """Operations that change something, in order."""
        return [name for name, _ in self.asked if not name.startswith(("Describe", "List"))]

    def bodies(self, operation: str) -> list[dict[str, Any]]:
        return [body for name, body in self.asked if name == operation]

    @property
    def backend(self) -> SageMakerModelBackend:
        from moto.sagemaker.models import sagemaker_backends

        return sagemaker_backends[ACCOUNT]["us-east-1"]

    def clear(self) -> None:
        self.updates, self.takes, self.asked, self._changing = [], 0, [], 0
        self.wrong = set()
        for kept in (self.backend.endpoints, self.backend.endpoint_configs, self.backend._models):
            kept.clear()

    # What replaces moto's methods

    def update_endpoint(self, response: SageMakerResponse) -> ActionResult:
        name, config = response._get_param("EndpointName"), response._get_param("EndpointConfigName")
        endpoint = self.backend.endpoints[name]
        if self._changing:
            raise AWSValidationException(f'Cannot update in-progress endpoint "{endpoint.arn}".')
        found = self.backend.endpoint_configs[config]
        outcome = self.updates.pop(0) if self.updates else ""
        endpoint.last_modified_time = endpoint.last_modified_time + timedelta(seconds=1)
        self._changing = self.takes
        if outcome == "fails":
            endpoint.endpoint_status, endpoint.failure_reason = "Failed", "The primary container did not pass its ping"
        elif not outcome:
            endpoint.endpoint_config_name = config
            endpoint.production_variants = endpoint._process_production_variants(found.production_variants)
        return ActionResult({"EndpointArn": endpoint.arn})

    def dispatched(self, response: SageMakerResponse) -> None:
        operation = response._get_action()
        body = json.loads(response.body or b"{}")
        shape = _DESCRIPTION.operation_model(operation).input_shape
        report = ParamValidator().validate(body, shape)
        assert not report.has_errors(), report.generate_report()
        assert faults(shape, body) == []
        self.asked.append((operation, body))
        taken = {
            "CreateModel": (self.backend._models, "ModelName"),
            "CreateEndpointConfig": (self.backend.endpoint_configs, "EndpointConfigName"),
            "CreateEndpoint": (self.backend.endpoints, "EndpointName"),
        }
        if operation in taken:
            kept, name = taken[operation]
            if body[name] in kept:
                raise AWSValidationException(f"Cannot create already existing {name} {body[name]}")

    def status(self, described: dict[str, Any]) -> dict[str, Any]:
        if self._changing:
            self._changing -= 1
            return described | {"EndpointStatus": "Updating"}
        return described

    def answer(self, endpoint: str, variant: str, body: bytes) -> dict[str, Any]:
        """What the release says that was uploaded for a variant: the answers that it recorded for its golden rows."""
        config = self.backend.endpoint_configs[self.backend.endpoints[endpoint].endpoint_config_name]
        made = next(each["ModelName"] for each in config.production_variants if each["VariantName"] == variant)
        url = self.backend._models[made].primary_container["ModelDataUrl"]
        bucket, _, key = url.removeprefix("s3://").partition("/")
        archive = self.s3._client.get_object(Bucket=bucket, Key=key)["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(archive)) as held:
            member = held.extractfile(GOLDEN)
            assert member is not None
            golden = json.loads(member.read())
        rows = json.loads(body)["rows"]
        answers = [golden["answers"][golden["rows"].index(row)] for row in rows]
        if key.split("/")[-2] in self.wrong:
            answers = [each | {"score": each["score"] / 2} for each in answers]
        return {"version": "1", "predictions": answers}


@contextlib.contextmanager
def sagemaker_server() -> Iterator[SageMaker]:
    with s3_server() as s3:
        fake = SageMaker(s3)
        call_action, described = SageMakerResponse.call_action, SageMakerModelBackend.describe_endpoint

        def dispatch(self: SageMakerResponse) -> Any:
            try:
                fake.dispatched(self)
            except AWSValidationException as error:
                return 400, {"x-amzn-ErrorType": "ValidationException"}, error.get_body()
            return call_action(self)

        def update_endpoint(self: SageMakerResponse) -> ActionResult:
            return fake.update_endpoint(self)

        def add_tags(self: SageMakerModelBackend, arn: str, tags: list[dict[str, str]]) -> list[dict[str, str]]:
            resource = self._get_resource_from_arn(arn)
            new = {each["Key"] for each in tags}
            resource.tags = [*(each for each in resource.tags if each["Key"] not in new), *tags]
            return list(resource.tags)

        def invoke(self: SageMakerRuntimeResponse) -> Any:
            variant = self.headers["X-Amzn-SageMaker-Target-Variant"]
            said = fake.answer(self.path.split("/")[2], variant, self.body)
            return 200, {"Content-Type": "application/json"}, json.dumps(said)

        with (
            mock.patch.object(SageMakerResponse, "call_action", dispatch),
            mock.patch.object(SageMakerResponse, "update_endpoint", update_endpoint, create=True),
            mock.patch.object(SageMakerModelBackend, "add_tags", add_tags),
            mock.patch.object(
                SageMakerModelBackend, "describe_endpoint", lambda self, name: fake.status(described(self, name))
            ),
            mock.patch.object(SageMakerRuntimeResponse, "invoke_endpoint", invoke),
        ):
            s3.create_bucket("releases")
            yield fake


def write_release(releases: Path, model: str, name: str) -> None:
    """A release that can be packed: a manifest, golden rows with answers, and no scorer that anybody would run here."""
    folder = releases / model / name
    folder.mkdir(parents=True)
    number = int(name.partition("-")[0])
    golden = {
        "rows": [{"x": 1.0}, {"x": 2.0}],
        "looked_up": None,
        "answers": [{"label": True, "score": 0.9 / number}, {"label": False, "score": 0.2 / number}],
    }
    (folder / GOLDEN).write_bytes(msgspec.json.encode(golden))
    (folder / SCHEMA).write_bytes(b"{}")
    (folder / REFERENCE).write_bytes(msgspec.json.encode({"features": {}, "scores": [{"edges": [0.25, 0.5]}]}))
    files = dict.fromkeys((GOLDEN, SCHEMA, REFERENCE), "")
    empty: dict[str, Any] = {"inputs": [], "event_time": None, "views": [], "null_values": [], "features": {}}
    write_manifest(
        folder,
        Manifest(
            format=5, model=model, version=str(number), task="binary", classes=[False, True], threshold=None,
            scorer="onnx", scorer_reason="", verdict={}, built_with={}, files=files, **empty,
        ),
    )  # fmt: skip
