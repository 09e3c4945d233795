"""What a server answered to one request, before anybody judged it."""

from __future__ import annotations

from typing import NamedTuple


class Answer(NamedTuple):
    """A complete HTTP answer; `body` holds at most what the transport's size limit allows.

    `retry_after` is in seconds. `has_next_link`: a Link header names a next page (RFC 8288).
    `not_modified`: the server confirmed by a 304 that its previous answer, this one, still holds.
    """

    status: int
    body: bytes = b""
    etag: str | None = None
    retry_after: float | None = None
    has_next_link: bool = False
    not_modified: bool = False
