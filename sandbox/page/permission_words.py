"""The permissions of an API key in words."""

from collections.abc import Mapping
from typing import NamedTuple

from sandbox import permissions

PERMISSION_WORDS = {
    "user_read": "Read the account: its SSH keys, variables and API keys.",
    "user_write": "Change the account: add, edit and delete SSH keys and API keys.",
    "instance_read": "See instances and the keys attached to them.",
    "instance_write": "Change instances: attach and detach keys.",
    "misc": "Search offers, and whatever fits nowhere else.",
    "billing_read": "See invoices and charges.",
    "billing_write": "Change payment methods.",
    "machine_read": "See hosted machines.",
    "machine_write": "Change hosted machines.",
    "team_read": "See team members and roles.",
    "team_write": "Change team members and roles.",
}


class ScopeWords(NamedTuple):
    """What a key may do: a summary, or the categories by name and whether each is narrowed."""

    summary: str
    categories: tuple[tuple[str, bool], ...] = ()


def scope_words(granted: Mapping[str, object]) -> ScopeWords:
    """For the list of API keys."""
    if permissions.same(granted, permissions.everything()):
        return ScopeWords("everything")
    if permissions.same(granted, permissions.only_for_keysync()):
        return ScopeWords("read the SSH keys, nothing else")
    return ScopeWords(
        "",
        tuple(
            (name, permissions.narrowed(granted, name)) for name in permissions.categories(granted)
        ),
    )
