"""What the provider itself does to instances: keys at creation, attach, detach, refresh."""

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import ColumnElement, Engine, RowMapping, delete, func, insert, select

from sandbox.account import Account
from sandbox.database import attached_keys, instances, now

# Keys that were attached by their text alone get numbers far from those of the account's list.
_OWN_NUMBERS = 1_000_000_000


class UnknownInstance(KeyError):
    """The account has no instance with this id."""


class NotAttached(KeyError):
    """No key with this id is attached to the instance."""


@dataclass(frozen=True, slots=True)
class LiveInstance:
    """An instance that runs now: how to log in, and where its keys and its agent are."""

    id: int
    label: str
    ssh_host: str
    ssh_port: int
    ssh_user: str
    keys_file: Path
    agent_config: Path | None


@dataclass(frozen=True, slots=True)
class AttachedKey:
    """A key that the platform writes to an instance's file."""

    key_id: int
    text: str
    created_at: str


class Platform:
    """The instances of one account; they end with the program that runs them."""

    def __init__(self, engine: Engine, account: Account) -> None:
        self._engine = engine
        self._account = account
        self._live: dict[int, LiveInstance] = {}
        with engine.begin() as connection:  # those of an earlier run are gone
            mine = select(instances.c.id).where(instances.c.user_id == account.user_id)
            connection.execute(delete(attached_keys).where(attached_keys.c.instance_id.in_(mine)))
            connection.execute(delete(instances).where(instances.c.user_id == account.user_id))

    def add_instance(
        self,
        label: str,
        *,
        keys_file: Path,
        ssh_host: str = "127.0.0.1",
        ssh_port: int = 22,
        ssh_user: str = "root",
        agent_config: Path | None = None,
    ) -> int:
        """Create an instance: the account's keys of this moment become plain lines of its file."""
        values = {"user_id": self._account.user_id, "label": label}
        with self._engine.begin() as connection:
            made = connection.execute(insert(instances).values(values).returning(instances.c.id))
            number: int = made.scalar_one()
        self._live[number] = LiveInstance(
            number, label, ssh_host, ssh_port, ssh_user, keys_file, agent_config
        )
        for key in self._account.stored():
            self._store(number, key.text, key.id)
        self.refresh(number)
        return number

    def remove_instance(self, instance_id: int) -> None:
        """Destroy an instance, raising `UnknownInstance`; its file is left to its owner."""
        self._running(instance_id)
        with self._engine.begin() as connection:
            connection.execute(delete(attached_keys).where(_attached_to(instance_id)))
            connection.execute(delete(instances).where(instances.c.id == instance_id))
        del self._live[instance_id]

    def instances(self) -> list[LiveInstance]:
        """Those that run, in the order of creation."""
        return list(self._live.values())

    def attached(self, instance_id: int) -> list[AttachedKey]:
        """The keys that the platform knows for an instance, raising `UnknownInstance`."""
        self._running(instance_id)
        wanted = select(attached_keys).where(_attached_to(instance_id)).order_by(attached_keys.c.id)
        with self._engine.connect() as connection:
            return [_attached(row) for row in connection.execute(wanted).mappings()]

    def attach(self, instance_id: int, text: str) -> AttachedKey:
        """Attach a text as a key, unless it is attached, and write the file anew.

        A text that the account lists keeps its number there, whatever the blanks at its end are.
        """
        wanted = text.replace("\0", "").strip()
        known = {key.text.strip(): key for key in self.attached(instance_id)}
        if wanted not in known:
            listed = {key.text.strip(): key.id for key in self._account.stored()}
            known[wanted] = self._store(instance_id, wanted, listed.get(wanted))
        self.refresh(instance_id)
        return known[wanted]

    def detach(self, instance_id: int, key_id: int) -> None:
        """Detach a key, raising `NotAttached` when it was not, and write the file anew."""
        self._running(instance_id)
        chosen = _attached_to(instance_id) & (attached_keys.c.key_id == key_id)
        with self._engine.begin() as connection:
            if connection.execute(delete(attached_keys).where(chosen)).rowcount == 0:
                raise NotAttached(key_id)
        self.refresh(instance_id)

    def refresh(self, instance_id: int) -> None:
        """Write the instance's file wholly from the attached keys: lines of others vanish."""
        keys_file = self._running(instance_id).keys_file
        lines = [key.text.rstrip("\r\n") + "\n" for key in self.attached(instance_id)]
        _replace(keys_file, "".join(lines).encode("utf-8", "surrogatepass"))

    def _running(self, instance_id: int) -> LiveInstance:
        if instance_id not in self._live:
            raise UnknownInstance(instance_id)
        return self._live[instance_id]

    def _store(self, instance_id: int, text: str, key_id: int | None) -> AttachedKey:
        values = {"instance_id": instance_id, "text": text, "created_at": now()}
        with self._engine.begin() as connection:
            highest = connection.execute(select(func.max(attached_keys.c.id))).scalar_one() or 0
            number = key_id or _OWN_NUMBERS + highest + 1
            made = insert(attached_keys).values({**values, "key_id": number})
            row = connection.execute(made.returning(attached_keys)).mappings().one()
        return _attached(row)


def _attached_to(instance_id: int) -> ColumnElement[bool]:
    return attached_keys.c.instance_id == instance_id


def _attached(row: RowMapping) -> AttachedKey:
    return AttachedKey(row["key_id"], row["text"], row["created_at"])


def _replace(path: Path, content: bytes) -> None:
    """Put a new file in place of the old one, for the directory's owner and closed to others.

    The directory is its owner's, who may put a link in place of anything while root writes: all is
    done through a descriptor of the directory, and no link is followed.
    """
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    new = f".{path.name}-{secrets.token_hex(8)}"
    try:
        _write(directory, new, content)
        os.replace(new, path.name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with suppress(FileNotFoundError):
            os.unlink(new, dir_fd=directory)
        raise
    finally:
        os.close(directory)


def _write(directory: int, name: str, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(name, flags, 0o600, dir_fd=directory)
    with open(descriptor, "wb") as file:
        file.write(content)
        os.fchmod(descriptor, 0o600)
        if os.geteuid() == 0:
            owner = os.fstat(directory)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
