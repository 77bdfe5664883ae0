"""What sources need and only the environment knows: addresses and credentials."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Access:
    """By the names that models use for them. It is never logged, stored or shown."""

    s3_endpoint_url: str | None = None
    databases: Mapping[str, str] = field(default_factory=dict, repr=False)
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
