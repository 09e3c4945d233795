"""The console's API over real HTTP on loopback."""

import threading
from types import TracebackType

from sandbox.account import Account
from sandbox.api import FAULTS, Answer, Api, KeyField, ListShape, Request, Switches, strangers_key
from sandbox.server import Server


class Console:
    """A context manager that serves one account's API on 127.0.0.1, on a free port by default.

    The keyword arguments are the fields of `switches`, which may also be changed while it serves.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        user_id: int = 4711,
        shape: ListShape = "list",
        key_field: KeyField = "key",
        include_deleted: bool = False,
        min_interval: float = 0.0,
        etag: bool = False,
    ) -> None:
        self.account = Account(user_id)
        self.stranger = Account(user_id + 1)
        self.stranger.add_key(strangers_key())
        self.switches = Switches(shape, key_field, include_deleted, min_interval, etag)
        self._api = Api(self.account, self.stranger, self.switches)
        self._requests: list[tuple[str, str]] = []
        self._port = port
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Console":
        """Listen and serve; the port is open when this returns."""
        self._server = Server(self._port, self._handle)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="console"
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop serving; open connections are closed and every thread has ended."""
        server, thread = self._server, self._thread
        self._server = self._thread = None
        if server is not None and thread is not None:
            server.shutdown()
            thread.join()
            server.server_close()

    @property
    def url(self) -> str:
        """The address without a path, as `api.url` and `VAST_URL` want it."""
        if self._server is None:
            raise RuntimeError("the console is not serving: use it as a context manager")
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def api_key(self) -> str:
        """The API key that works now."""
        return self.account.api_key

    @property
    def user_id(self) -> int:
        """The id of the account, as every entry of its list says it."""
        return self.account.user_id

    @property
    def requests(self) -> list[tuple[str, str]]:
        """Method and path of every request seen so far, faults included (a copy)."""
        return list(self._requests)

    @property
    def fault(self) -> str | None:
        """The fault that is switched on, one of `sandbox.api.FAULTS`, or None.

        outage           the connection is closed without an answer
        error_500        500 with the usual error object
        rate_limited     429 in plain text, without Retry-After
        empty_list       a well-formed list with nothing in it
        html             a page with status 200
        truncated        the first half of the right answer, with a matching Content-Length
        another_account  the list and the user of `stranger`
        """
        return self.switches.fault

    @fault.setter
    def fault(self, name: str | None) -> None:
        if name is not None and name not in FAULTS:
            raise ValueError(f"unknown fault {name!r}; there are {', '.join(FAULTS)}")
        self.switches.fault = name

    def add_key(self, text: str) -> int:
        """Store a text as a new SSH key and return its id (+New on the Keys page)."""
        return self.account.add_key(text).id

    def edit_key(self, key_id: int, text: str) -> None:
        """Replace the text of a key (Edit on the Keys page)."""
        self.account.edit_key(key_id, text)

    def delete_key(self, key_id: int) -> None:
        """Delete a key (Delete on the Keys page)."""
        self.account.delete_key(key_id)

    def reset_api_key(self) -> str:
        """Give a new API key and return it; the old one is dead at once (Reset)."""
        return self.account.reset_api_key()

    def _handle(self, request: Request) -> Answer | None:
        self._requests.append((request.method, request.path))
        return self._api.answer(request)
