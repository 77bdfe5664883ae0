"""The errors that ml-assets raises on purpose. Each message names the model, the place, the value and the next step."""


class MlAssetsError(Exception):
    """Root of all errors of this package; catching it never hides a programming error."""


class SettingsError(MlAssetsError):
    """A setting from the environment is wrong."""


class ModelDefinitionError(MlAssetsError):
    """A model's folder (defs.yaml, contract.py, features.py) does not describe a model that can be built."""


class SourceError(MlAssetsError):
    """A source cannot be listed or read: it is missing, empty, damaged, or refuses the credentials."""


class BatchContentError(SourceError):
    """What arrived is empty, damaged or not what the contract says; a second look sees the same."""


class SourceUnavailableError(SourceError):
    """A source did not answer, however often it was asked; it may again later."""


class BatchRefusedError(MlAssetsError):
    """The rows of one partition break the contract as a whole, so that nothing of them is written."""


class RunFailedError(MlAssetsError):
    """A run that a command started failed; the message has what its steps said."""


class TrainingError(MlAssetsError):
    """A model cannot be trained on the rows that are there."""


class TrackingError(MlAssetsError):
    """MLflow does not answer, refuses the credentials, or does not hold what was recorded."""


class ReleaseError(MlAssetsError):
    """A release is incomplete, changed or unreadable, so that it must not serve."""


class UnlistedError(MlAssetsError):
    """A fitted Pipeline holds something that no graph is made of, so that scikit-learn itself has to serve it."""


class NotApprovedError(MlAssetsError):
    """`endpoint` was asked to serve a model version without a valid, positive verdict."""


class EndpointError(MlAssetsError):
    """The endpoint server does not run, or does not answer as the release says that it must."""


class TargetError(MlAssetsError):
    """A target of rollouts refuses what it is asked for, and would again."""


class TargetUnavailableError(TargetError):
    """A target does not answer, or is busy; the same call may do at the next tick."""


class MonitoringError(MlAssetsError):
    """What came later cannot be held against what a release was approved with."""


class OnlineStoreError(MlAssetsError):
    """The online store does not answer, or holds what cannot be read; a request that needs it is answered with
    `status`.
    """

    status = 503


class InvalidRequestError(MlAssetsError):
    """A prediction request that the contract refuses; answered with `status`."""

    status = 422


class AlertError(MlAssetsError):
    """An alert was not taken by the channel that it was sent to."""
