"""Clients of the local console, for the tests of it."""

from __future__ import annotations

import httpx

from sandbox import permissions
from sandbox.console import Console

LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== laptop"
KEYS = "/api/v0/ssh/"
USER = "/api/v0/users/current/"
API_KEYS = "/api/v0/auth/apikeys/"


def client_of(console: Console, api_key: str | None = None) -> httpx.Client:
    """A client with an API key, by default the account's own."""
    headers = {"Authorization": f"Bearer {api_key or console.api_key}"}
    return httpx.Client(base_url=console.url, headers=headers, trust_env=False, timeout=10)


def make_key(console: Console, *categories: str) -> str:
    """The value of a new API key with these permissions."""
    return console.world.api_keys.create("scoped", permissions.of(*categories))[1]
