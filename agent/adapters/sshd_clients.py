"""The kinds of connections that sshd can receive: client addresses, own addresses and ports."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent.adapters.match_address import matching_address
from agent.core.url import is_loopback

_MAX_CLIENTS = 16
_MAX_SOURCES = 8  # client addresses taken from Match Address


@dataclass(frozen=True, slots=True)
class Client:
    """A connection, in the terms of `sshd -T -C` (sshd(8)): client address, own address, port."""

    addr: str
    laddr: str
    lport: int

    def specification(self, user: str) -> str:
        """The value of -C for a login as `user`."""
        host = "localhost" if is_loopback(self.addr) else self.addr
        return f"user={user},host={host},addr={self.addr},laddr={self.laddr},lport={self.lport}"

    def __str__(self) -> str:
        return f"from {self.addr} to {self.laddr} port {self.lport}"


_REMOTE = "192.0.2.1"  # reserved for documentation (RFC 5737): stands for any other machine
_REMOTE_6 = "2001:db8::1"  # RFC 3849
ANYBODY = Client(_REMOTE, "127.0.0.1", 22)


def possible_clients(
    settings: Mapping[str, tuple[str, ...]], address_lists: Sequence[str]
) -> list[Client]:
    """A client for each address and port that sshd listens on, those on other machines first.

    Unless sshd listens on loopback only, a client follows for each Match Address block that one
    was found for. `settings` are the output of `sshd -T` by keyword in lower case, `address_lists`
    the values of Match Address. Each part has at most 16 clients.
    """
    places = _listening() or _configured(settings)
    found = dict.fromkeys(client for place in places for client in _clients_of(*place))
    ordered = sorted(found, key=lambda client: is_loopback(client.addr))[:_MAX_CLIENTS]
    remote = [client for client in ordered if not is_loopback(client.addr)]
    sources = _sources(address_lists)
    more = [replace(client, addr=source) for client in remote for source in sources]
    return [*ordered, *more[:_MAX_CLIENTS]] or [ANYBODY]


def _sources(address_lists: Sequence[str]) -> list[str]:
    """A client address for each of the first Match Address blocks, except loopback."""
    found = map(matching_address, address_lists[:_MAX_SOURCES])
    return [address for address in found if address and not is_loopback(address)]


def unchecked_addresses(address_lists: Sequence[str]) -> str | None:
    """A message when sshd was not asked about some Match Address blocks."""
    first, more = address_lists[:_MAX_SOURCES], address_lists[_MAX_SOURCES:]
    left = [*(one for one in first if matching_address(one) is None), *more]
    if not left:
        return None
    shown = ", ".join(left[:_MAX_SOURCES]) + (", ..." if len(left) > _MAX_SOURCES else "")
    return (
        f"sshd_config has Match Address blocks for which sshd was not asked ({shown}); for clients "
        "that match one, sshd may read another key file. Make AuthorizedKeysFile the same in every "
        "Match block."
    )


def _clients_of(address: str, port: int) -> list[Client]:
    if is_loopback(address):
        return [Client(address, address, port)]
    if not ipaddress.ip_address(address.partition("%")[0]).is_unspecified:
        return [Client(_REMOTE_6 if ":" in address else _REMOTE, address, port)]
    return [Client(_REMOTE, _own_address(), port), Client("127.0.0.1", "127.0.0.1", port)]


def _own_address() -> str:
    """This machine's source address for outgoing traffic; finding it sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_REMOTE, 9))
        except OSError:  # no network
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _configured(settings: Mapping[str, tuple[str, ...]]) -> list[tuple[str, int]]:
    """The addresses and ports of ListenAddress, printed as [::]:22 or 0.0.0.0:22."""
    found = []
    for value in settings.get("listenaddress", ()):
        host, _, port = value.split(" ")[0].rpartition(":")
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(host.strip("[]").partition("%")[0])
            found.append((host.strip("[]"), int(port)))
    return found or [("0.0.0.0", int(settings.get("port", ("",))[0] or 22))]  # noqa: S104  # reason: compared


def _listening() -> list[tuple[str, int]]:
    """Where the running sshd listens (proc(5)), even if its configuration has changed since.

    Empty if unknown: without /proc/net, without permission to inspect other processes, and while
    systemd listens in its place. An sshd with another configuration file (-f) is ignored.
    """
    inodes = {inode for process in Path("/proc").glob("[0-9]*") for inode in _sockets_of(process)}
    if not inodes:
        return []
    return [
        location
        for name in ("tcp", "tcp6")
        for inode, location in _listeners(Path("/proc/net", name))
        if inode in inodes
    ]


def _sockets_of(process: Path) -> Iterable[str]:
    with contextlib.suppress(OSError):
        if (process / "comm").read_bytes() != b"sshd\n":
            return
        words = (process / "cmdline").read_bytes().replace(b"\0", b" ")
        if b" -f" in words:
            return
        for name in os.listdir(process / "fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(process / "fd" / name)
                if target.startswith("socket:["):
                    yield target[len("socket:[") : -1]


_LISTEN = "0A"


def _listeners(table: Path) -> Iterable[tuple[str, tuple[str, int]]]:
    """Each listening socket of /proc/net/tcp and tcp6: its inode, address and port."""
    with contextlib.suppress(OSError):
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN:
                address, _, port = fields[1].partition(":")
                yield fields[9], (_address(address), int(port, 16))


def _address(text: str) -> str:
    """An address of /proc/net/tcp: hexadecimal 32-bit words, each little-endian."""
    words = (bytes.fromhex(text[at : at + 8]) for at in range(0, len(text), 8))
    return str(ipaddress.ip_address(b"".join(word[::-1] for word in words)))
