"""Answers of the API in the platform's form, and which of them every call may get."""

import json
from typing import Any

from starlette.responses import PlainTextResponse, Response

from sandbox.api.models import Error


class Json(Response):
    """JSON in ASCII, so that any text that was stored can be sent, half a surrogate pair too."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return json.dumps(content).encode()


def failure(status: int, error: str, message: str) -> Json:
    """The platform's usual error object."""
    return Json({"success": False, "error": error, "msg": message}, status)


def auth_error(status: int = 404) -> Json:
    """A bad key is 404, the status that is also documented as having no keys."""
    return failure(status, "auth_error", "Invalid user key")


def no_ssh_key() -> Json:
    """No text was sent, or no key has the id."""
    return failure(400, "no_ssh_key", "No ssh key provided")


def invalid_request(message: str = "Invalid request parameters") -> Json:
    """The request cannot be understood."""
    return failure(400, "invalid_request", message)


def not_found() -> Json:
    """The console has no such path."""
    return failure(404, "not_found", "No such endpoint")


def too_frequent(threshold: float) -> Response:
    """The rate limit's answer: plain text, and no Retry-After."""
    return PlainTextResponse(f"API requests too frequent: endpoint threshold={threshold}", 429)


Documented = dict[int | str, dict[str, Any]]


def documented(*statuses: int) -> Documented:
    """The documentation of the errors that a call may answer with, beside those of every call."""
    found: Documented = {
        status: {"model": Error, "description": _MEANINGS[status]}
        for status in sorted({*statuses, 401, 403, 404})
    }
    found[429] = {
        "description": "too early after the last request of the same identity",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
    return found


def linked(description: str, identifier: str, *operations: str) -> Documented:
    """The documentation of an answer that names what other calls take as their `id`."""
    links = {
        operation: {"operationId": operation, "parameters": {"id": f"$response.body#{identifier}"}}
        for operation in operations
    }
    return {200: {"description": description, "links": links}}


_MEANINGS = {
    400: "the request cannot be understood, or names a key that is not there",
    401: "the API key is not valid",
    403: "the API key lacks the permission",
    404: "the API key is not valid, or what the path names is not there",
}
