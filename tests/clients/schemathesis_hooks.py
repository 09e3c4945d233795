"""Loaded by schemathesis into its own process: keeps the API key of its requests alive."""

from __future__ import annotations

import os
from typing import Any

import schemathesis

_current = {"value": os.environ["CONSOLE_API_KEY"]}
_ID = os.environ["CONSOLE_API_KEY_ID"]


@schemathesis.auth(refresh_interval=None)
class CurrentKey:
    """The key of the moment: one of the calls under test gives it a new value."""

    def get(self, case: Any, context: Any) -> str:
        return _current["value"]

    def set(self, case: Any, data: str, context: Any) -> None:
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.hook  # type: ignore[untyped-decorator]  # reason: it is not in .venv
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Spare the key from being deleted by its own request, after which all would be refused."""
    if _operation(case) == "delete_api_key" and str(case.path_parameters.get("id")) == _ID:
        case.path_parameters["id"] = 0


@schemathesis.hook  # type: ignore[untyped-decorator]  # reason: it is not in .venv
def after_call(context: Any, case: Any, response: Any) -> None:
    """Go on with the new value after a reset, since the old one is dead."""
    if _operation(case) == "reset_api_key" and response.status_code == 200:
        _current["value"] = response.json()["new_api_key"]


def _operation(case: Any) -> str | None:
    name: str | None = case.operation.definition.raw.get("operationId")
    return name
