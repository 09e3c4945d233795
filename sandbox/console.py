"""The console over real HTTP on loopback, as tests and the demo use it."""

import shutil
import tempfile
import weakref
from pathlib import Path
from types import TracebackType

from sandbox.account import Account
from sandbox.app import create_app
from sandbox.faults import KeyField, ListShape, Switches, checked_fault
from sandbox.server import Server
from sandbox.world import World


class Console:
    """A context manager that serves one account on 127.0.0.1, on a free port by default.

    The keyword arguments from `shape` on are fields of `switches`, which may also be changed while
    it serves. Without a directory the data last as long as this object, also over several times
    of serving; with one they are found again by the next console.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        user_id: int = 4711,
        directory: Path | None = None,
        is_team: bool = False,
        shape: ListShape = "list",
        key_field: KeyField = "key",
        include_deleted: bool = False,
        min_interval: float = 0.0,
        etag: bool = False,
    ) -> None:
        where = directory or Path(tempfile.mkdtemp(prefix="keysync-console-"))
        self.world = World.open(where, user_id, is_team=is_team)
        self.world.switches = Switches(shape, key_field, include_deleted, min_interval, etag)
        weakref.finalize(self, _let_go, self.world, None if directory else where)
        self._port = port
        self._server: Server | None = None

    def __enter__(self) -> "Console":
        """Listen and serve; everything answers when this returns."""
        self._server = Server(create_app(self.world), self._port).__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop serving; open connections are closed and the thread has ended."""
        server, self._server = self._server, None
        if server is not None:
            server.__exit__()

    @property
    def url(self) -> str:
        """The address without a path, as `api.url` and `VAST_URL` want it."""
        if self._server is None:
            raise RuntimeError("the console is not serving: use it as a context manager")
        return self._server.url

    @property
    def api_key(self) -> str:
        """The API key that the console was opened with, or that `reset_api_key` gave."""
        return self.world.credentials.api_key

    @property
    def account(self) -> Account:
        """The account that the console serves."""
        return self.world.account

    @property
    def stranger(self) -> Account:
        """The account that the fault `another_account` shows."""
        return self.world.stranger

    @property
    def switches(self) -> Switches:
        """How the API answers."""
        return self.world.switches

    @property
    def user_id(self) -> int:
        """The id of the account, as every entry of its list says it."""
        return self.account.user_id

    @property
    def requests(self) -> list[tuple[str, str]]:
        """Method and path of every request to the API so far, faults included (a copy)."""
        return list(self.world.requests)

    @property
    def fault(self) -> str | None:
        """The fault that is switched on, one of `sandbox.faults.FAULTS`, or None."""
        return self.switches.fault

    @fault.setter
    def fault(self, name: str | None) -> None:
        self.switches.fault = checked_fault(name)

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
        return self.world.reset_api_key()


def _let_go(world: World, temporary: Path | None) -> None:
    world.close()
    if temporary is not None:
        shutil.rmtree(temporary, ignore_errors=True)
