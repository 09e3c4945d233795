"""The console's rate limit: a least time between two requests of one identity.

Source: what the provider's open clients expect. The identity is the token, the session, the
`api_key` parameter and the client's address together: instances of one account on one host are one.
"""

import time
from dataclasses import dataclass, field

_MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks, as the rate limit sees it."""

    token: str | None
    session: str | None
    api_key: str | None
    address: str


@dataclass(slots=True)
class RateLimit:
    """When each identity last got an answer, per endpoint and method."""

    _last: dict[tuple[Identity, str, str], float] = field(default_factory=dict)

    def refuses(self, identity: Identity, method: str, endpoint: str, min_interval: float) -> bool:
        """Whether a request comes too early; a refused one does not prolong the wait."""
        if min_interval <= 0:
            return False
        asked = (identity, method, endpoint)
        moment = time.monotonic()
        if moment - self._last.get(asked, float("-inf")) < min_interval:
            return True
        self._forget(moment - min_interval)
        self._last[asked] = moment
        return False

    def _forget(self, before: float) -> None:
        if len(self._last) >= _MOST_REMEMBERED:
            self._last = {asked: last for asked, last in self._last.items() if last > before}
