"""What SageMaker is told of an endpoint: its configuration, and how it moves traffic to a new one. Sends nothing."""

from datetime import timedelta
from typing import Any

from ml_assets.durations import parse_duration
from ml_assets.spec.endpoint import SageMaker


def endpoint_config(spec: SageMaker, variants: dict[str, tuple[str, int]], captured: str | None) -> dict[str, Any]:
    """The configuration of an endpoint, without its name, which comes from this.

    Args:
        variants: SageMaker's model and weight of each.
        captured: where in S3 requests and answers are kept.
    """
    body: dict[str, Any] = {
        "ProductionVariants": [
            {
                "VariantName": name,
                "ModelName": made,
                "InitialInstanceCount": spec.instances,
                "InstanceType": spec.instance,
                "InitialVariantWeight": float(weight),
            }
            for name, (made, weight) in variants.items()
        ]
    }
    if captured is not None:
        body["DataCaptureConfig"] = {
            "EnableCapture": True,
            "InitialSamplingPercentage": spec.capture,
            "DestinationS3Uri": captured,
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
        }
    return body


def deployment_config(spec: SageMaker) -> dict[str, Any]:
    """How SageMaker moves the traffic to a new configuration, and by which alarms it goes back."""
    wait = parse_duration(spec.wait)
    routing: dict[str, Any] = {"Type": spec.traffic.upper(), "WaitIntervalInSeconds": int(wait.total_seconds())}
    size = {"Type": "CAPACITY_PERCENT", "Value": spec.share}
    steps = 1
    if spec.traffic == "canary":
        routing["CanarySize"] = size
    elif spec.traffic == "linear":
        routing["LinearStepSize"], steps = size, -(-100 // spec.share)
    # All steps and half an hour to start instances; SageMaker takes eight hours at most.
    longest = min(wait * steps + timedelta(minutes=30), timedelta(hours=8))
    config: dict[str, Any] = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": routing,
            "TerminationWaitInSeconds": int(wait.total_seconds()),
            "MaximumExecutionTimeoutInSeconds": int(longest.total_seconds()),
        }
    }
    if spec.alarms:
        config["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": each} for each in spec.alarms]}
    return config
