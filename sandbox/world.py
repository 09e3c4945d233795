"""Everything that the console is made of, opened from one directory and found there again."""

import secrets
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sqlalchemy import Engine

from sandbox.account import Account, UnknownAccount
from sandbox.api_keys import ApiKeys
from sandbox.database import open_database
from sandbox.directory import Claim, DirectoryError, read_texts, write_texts
from sandbox.faults import Switches, strangers_key
from sandbox.permissions import everything
from sandbox.platform import Platform
from sandbox.rate import RateLimit
from sandbox.sessions import Sessions

_CREDENTIALS = "credentials.json"
_MOST_NOTED = 100_000


@dataclass(frozen=True, slots=True)
class Credentials:
    """What opens the one account: the page with login and password, the API with a key."""

    login: str
    password: str
    api_key: str


@dataclass(slots=True)
class World:
    """The console without its network: the data of one account, and how the API answers."""

    engine: Engine
    account: Account
    stranger: Account
    api_keys: ApiKeys
    sessions: Sessions
    platform: Platform
    credentials: Credentials
    _directory: Path
    _claim: Claim
    ready_file: Path | None = None  # where whoever started the console has the credentials too
    switches: Switches = field(default_factory=Switches)
    rate: RateLimit = field(default_factory=RateLimit)
    requests: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=_MOST_NOTED))

    @classmethod
    def open(cls, directory: Path, user_id: int = 4711, *, is_team: bool = False) -> "World":
        """Open what a directory holds, or make a fresh account in it.

        The credentials are kept beside the data, closed to others; when they are lost, or their
        API key or password works no more, new ones do. Until `close` the directory is taken: a
        second console on it raises `DirectoryError`.
        """
        claim = Claim(directory)
        try:
            return cls._opened(directory, claim, user_id, is_team=is_team)
        except BaseException:
            claim.release()
            raise

    @classmethod
    def _opened(cls, directory: Path, claim: Claim, user_id: int, *, is_team: bool) -> "World":
        known = _read(directory / _CREDENTIALS)
        engine = open_database(directory / "console.sqlite3")
        password = known.password if known else secrets.token_urlsafe(12)
        account = _account(engine, user_id, password, is_team=is_team)
        api_keys = ApiKeys(engine, user_id)
        api_key = known.api_key if known else ""
        if api_keys.find(api_key) is None:
            api_key = api_keys.create("sandbox", everything())[1]
        world = cls(
            engine=engine,
            account=account,
            stranger=_stranger(engine, user_id + 1),
            api_keys=api_keys,
            sessions=Sessions(engine),
            platform=Platform(engine, account),
            credentials=Credentials(account.login, password, api_key),
            _directory=directory,
            _claim=claim,
        )
        world._keep()
        return world

    def reset_api_key(self) -> str:
        """Give the credentials' API key a new value, or make one when it was deleted."""
        known = self.api_keys.find(self.credentials.api_key)
        if known is None:
            value = self.api_keys.create("sandbox", everything())[1]
        else:
            value = self.api_keys.reset(known.id)
        self.credentials = Credentials(self.credentials.login, self.credentials.password, value)
        self._keep()
        return value

    @property
    def credential_files(self) -> list[Path]:
        """Where the credentials can be read by whoever started the console."""
        known = [self._directory / _CREDENTIALS, self.ready_file]
        return [path.absolute() for path in known if path is not None]

    def close(self) -> None:
        """Let the database go; the directory can be opened again."""
        self.engine.dispose()
        self._claim.release()

    def _keep(self) -> None:
        write_texts(self._directory / _CREDENTIALS, asdict(self.credentials))


def _read(path: Path) -> Credentials | None:
    found = read_texts(path)
    try:
        return None if found is None else Credentials(**found)
    except TypeError:
        raise DirectoryError(f"{path} is of another program: name another directory") from None


def _account(engine: Engine, user_id: int, password: str, *, is_team: bool) -> Account:
    """The account, which this password opens."""
    try:
        account = Account(engine, user_id)
    except UnknownAccount:
        login = f"renter-{user_id}"
        return Account.create(engine, user_id, login, password, is_team=is_team)
    if not account.check_password(password):
        account.set_password(password)
    return account


def _stranger(engine: Engine, user_id: int) -> Account:
    try:
        return Account(engine, user_id)
    except UnknownAccount:
        account = Account.create(engine, user_id, f"renter-{user_id}")
        account.add_key(strangers_key())
        return account
