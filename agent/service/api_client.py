"""The connection to the API, with the API key that it uses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from agent.adapters.credential import find_credential
from agent.config import Config
from agent.core.answer import Answer
from agent.core.secret import Credential
from agent.errors import KeysyncError
from agent.providers import provider

if TYPE_CHECKING:
    from agent.adapters.http import HttpClient


class ApiClient:
    """Opens the connection with the first request and keeps it between cycles."""

    def __init__(self, config: Config, environment: Mapping[str, str]) -> None:
        self._config = config
        self._environment = environment
        self._client: HttpClient | None = None

    def credential(self) -> Credential:
        """The API key, looked up again at each call. Raises CredentialRejected."""
        return find_credential(self._config.api_key_file, self._environment)

    def fetch(self, credential: Credential) -> Answer:
        """The answer to one request for the account's SSH keys, not judged yet.

        Raises AnswerUnusable when it is not complete HTTP, TemporaryFailure when none came.
        """
        if self._client is None:
            from agent.adapters.http import HttpClient  # loads httpx, which status does without

            url = provider.list_url(self._config.api_url)
            self._client = HttpClient(url, self._config.api_timeout)
        return self._client.fetch(credential)

    def close(self) -> None:
        """Closes the connection, which also ends a request that is running."""
        if self._client is not None:
            self._client.close()


@contextlib.contextmanager
def secret_hidden(credential: Credential) -> Iterator[None]:
    """Removes the API key from error messages, since an answer may repeat it (G10).

    Where the key itself seems wrong, the message names it by its last characters and its source.
    """
    try:
        yield
    except KeysyncError as error:
        error.message = credential.hidden_in(error.message)
        if error.kind in ("credential_rejected", "not_found"):
            error.message += f" The API key was {credential.masked} from {credential.source}."
        raise
