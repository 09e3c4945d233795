"""The OpenAPI document is written from the code: every call, its errors and its key."""

from typing import Any

import pytest

from sandbox import permissions
from sandbox.console import Console
from tests.sandbox.support import client_of

CALLS = {
    "/api/v0/ssh/": {"get", "post"},
    "/api/v0/ssh/{id}/": {"put", "delete"},
    "/api/v0/instances/{id}/ssh/": {"get", "post"},
    "/api/v0/instances/{id}/ssh/{ssh_key_id}/": {"delete"},
    "/api/v0/auth/apikeys/": {"get", "post"},
    "/api/v0/auth/apikeys/{id}/": {"get", "delete"},
    "/api/v0/commands/reset_apikey/": {"put"},
    "/api/v0/users/current/": {"get"},
    "/api/v0/gpu_names/unique/": {"get"},
}
PUBLIC = "gpu_names"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    with Console() as console, client_of(console) as client:
        found: dict[str, Any] = client.get("/api/v0/openapi.json").json()
        return found


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in document["paths"].values() for operation in path.values()]


def test_it_has_every_call_and_no_page(document: dict[str, Any]) -> None:
    """The paths are the platform's, with its final slashes; the Keys page is not among them."""
    assert {path: set(calls) for path, calls in document["paths"].items()} == CALLS


def test_every_call_but_one_needs_a_key(document: dict[str, Any]) -> None:
    """Each names the bearer scheme and the permission it needs, and how it is refused."""
    for operation in operations(document):
        if operation["operationId"] == PUBLIC:
            assert "security" not in operation
            continue
        assert operation["security"] == [{"HTTPBearer": []}]
        assert operation["x-permission"]["category"] in permissions.CATEGORIES
        assert {"403", "404", "429"} <= set(operation["responses"])
        assert set(operation["responses"]["429"]["content"]) == {"text/plain"}


def test_endpoints_have_names_of_their_own(document: dict[str, Any]) -> None:
    """Constraints name an endpoint, so no two calls share one."""
    names = [each["x-permission"]["endpoint"] for each in operations(document)[:-1]]
    assert len(names) == len(set(names)) == 13


def test_it_promises_no_answer_that_the_code_does_not_give(document: dict[str, Any]) -> None:
    """What the models refuse is 400 here, not the framework's 422."""
    for operation in operations(document):
        assert "422" not in operation["responses"]
    assert not {"HTTPValidationError", "ValidationError"} & set(document["components"]["schemas"])
