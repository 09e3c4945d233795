"""The configuration as values: every option with its default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from agent.core.listing import ListedKey
from agent.providers import provider

DEFAULT_PATH = "/etc/keysync/config.yaml"


@dataclass(frozen=True, slots=True)
class Target:
    """A local user, and the key file if it is not the one that sshd reads for the user."""

    user: str
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """The effective configuration; times are in seconds.

    `sources` gives the source of a value by the option's name: a variable, or "file:line".
    """

    api_url: str = provider.API_URL
    api_key_file: str | None = None
    api_timeout: float = 10.0
    poll_interval: float = 30.0
    poll_jitter: float = 5.0
    poll_max_backoff: float = 600.0
    targets: tuple[Target, ...] | None = None  # None: auto, determined in each cycle
    policy_unmanaged: Literal["keep", "remove"] = "keep"
    policy_removal_confirmations: int = 3
    policy_removal_hold: float = 300.0
    policy_additions: Literal["apply", "hold"] = "apply"
    policy_min_rsa_bits: int = 2048
    policy_max_staleness: float | None = 900.0
    pins: tuple[ListedKey, ...] = ()
    state_dir: str = "/var/lib/keysync"
    sources: Mapping[str, str] = field(default_factory=dict)
