"""The same user, console and machine as in the tests of the file side."""

from __future__ import annotations

from tests.adapters.conftest import _somebody, console, machine, user

__all__ = ["_somebody", "console", "machine", "user"]
