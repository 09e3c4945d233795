"""A machine in sync, an authority that it may be told to trust, and a look at what is left open."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import pytest

from tests.network.support import fetching, sockets, synced_machine
from tests.support.bad_server import eventually
from tests.support.certificates import Authority
from tests.support.machine import Machine


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """In sync with `GOOD`. For tests that change nothing on it, or say so by its name."""
    return synced_machine(tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.made_in(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls(authority: Authority) -> Iterator[ssl.SSLContext]:
    """For a server whose certificate the clients of this process trust."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(authority.path))
        yield authority.server()


@pytest.fixture(autouse=True)
def nothing_left_over() -> Iterator[None]:
    """No thread and no socket of the agent outlives its command for long."""
    before = sockets()
    yield
    assert eventually(lambda: not fetching()), "the fetching thread is still there"
    assert eventually(lambda: sockets() <= before), "a socket is still open"
