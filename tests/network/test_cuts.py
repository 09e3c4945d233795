"""An answer that ends too early: every byte of a whole answer is where it is cut off."""

from __future__ import annotations

import pytest

from agent.core.listing import Listing
from agent.errors import KeysyncError
from tests.network.support import CHUNKED, STAYS, chunked, client, fails, listing_of
from tests.support.bad_server import BadServer, answer, reset, script
from tests.support.certificates import Authority
from tests.support.machine import Machine, key_line, listing

pytestmark = pytest.mark.attack

SHORT = listing(key_line("laptop"))


def test_every_cut_of_a_sync(machine: Machine) -> None:
    """G1: an answer that ends after any of its bytes fails by name, and the key file stays."""
    whole = answer(SHORT)
    head = len(whole) - len(SHORT)
    with BadServer(b"") as server:
        for end in range(len(whole)):
            server.scripts = [script(whole[:end])]
            if end < head:
                fails(machine, server.url, "connection_lost", 75, "127.0.0.1", STAYS)
            else:
                fails(machine, server.url, "truncated", 65, "before the end", STAYS)


def outcome(server: BadServer) -> tuple[str, int] | Listing:
    """What one request with a new connection makes of the answer."""
    with client(server.url) as console:
        try:
            return listing_of(console)
        except KeysyncError as error:
            return error.kind, error.exit_code


def forms() -> dict[str, bytes]:
    """A whole answer in each framing that tells its end."""
    middle = len(SHORT) // 2
    parts = chunked(SHORT[:middle], SHORT[middle:])
    return {
        "length": answer(SHORT),
        "chunks": answer(parts, headers=[CHUNKED], length=None),
        "hints before": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer(SHORT),
        "wrapped": answer(b'{"success": true, "ssh_keys": ' + SHORT + b"}"),
    }


@pytest.mark.parametrize("how", ["closed", "reset"])
@pytest.mark.parametrize("form", forms())
def test_every_cut_of_an_answer(form: str, how: str) -> None:
    """G1: with a FIN or a RST after any byte, in each framing: a failure, never a shorter list."""
    whole = forms()[form]
    end_steps = [reset] if how == "reset" else []
    expected = {("connection_lost", 75), ("truncated", 65)}
    with BadServer(b"") as server:
        for end in range(len(whole)):
            server.scripts = [script(whole[:end], *end_steps)]
            assert outcome(server) in expected, end
        server.scripts = [script(whole)]
        assert isinstance(outcome(server), Listing)


def test_every_cut_under_tls(authority: Authority) -> None:
    """G1: also inside TLS, ended without the close that proves the end (RFC 8446 section 6.1)."""
    whole = answer(SHORT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(authority.path))
        with BadServer(b"", tls=authority.server()) as server:
            for end in range(0, len(whole), 3):
                server.scripts = [script(whole[:end])]
                assert outcome(server) in {("connection_lost", 75), ("truncated", 65)}, end


def test_every_wrong_length(machine: Machine) -> None:
    """G1: a Content-Length that is too short by any number cuts the list, and so is no JSON; one
    that is too long is never reached.
    """
    with BadServer(b"") as server:
        for length in range(1, len(SHORT)):
            server.scripts = [script(answer(SHORT, length=length))]
            assert outcome(server) == ("not_json", 65), length
        for length in (len(SHORT) + 1, len(SHORT) * 2, 2**31, 2**63):
            server.scripts = [script(answer(SHORT, length=length))]
            fails(machine, server.url, "truncated", 65, "before the end")
        server.scripts = [script(answer(SHORT, length=0))]
        fails(machine, server.url, "empty_body", 65)
