"""The project's errors as exceptions."""

from __future__ import annotations

from agent.errors import Busy, TargetFailed


def test_a_secret_that_was_taken_out_of_the_message_is_out_of_the_error() -> None:
    """Incident 28, G10: neither the text nor the representation has what the message lost."""
    error = TargetFailed("k", "Bearer SECRET", "h")
    error.message = "Bearer (hidden)"
    assert str(error) == "Bearer (hidden)"
    assert "SECRET" not in repr(error)


def test_a_held_lock_has_an_exit_code_of_its_own_kind() -> None:
    """Incident 28: it may be tried again, and says nothing about the API."""
    assert Busy("busy", "m", "h").exit_code == 75
