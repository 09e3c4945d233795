"""The options field in front of a key, case by case as sshd(8) and its parser have it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.options import Options, end_of_options, parse_options
from tests.core.support import growth_of_cost

KEY = b"ssh-ed25519 AAAA"

ACCEPTED = {
    b"restrict": ("restrict",),
    b"RESTRICT,No-Pty": ("restrict", "no-pty"),
    b"restrict,pty": ("restrict", "pty"),
    b"restrict,restrict,no-pty,pty": ("restrict", "restrict", "no-pty", "pty"),
    b"no-agent-forwarding,no-port-forwarding,no-user-rc,no-X11-forwarding": (
        "no-agent-forwarding",
        "no-port-forwarding",
        "no-user-rc",
        "no-x11-forwarding",
    ),
    b"no-touch-required,verify-required": ("no-touch-required", "verify-required"),
    b'from="*.sales.example.net,!pc.sales.example.net"': ("from",),
    b'from="10.0.0.0/8",command="x"': ("from", "command"),
    b'command="dump /home",no-pty,no-port-forwarding': (
        "command",
        "no-pty",
        "no-port-forwarding",
    ),
    b'command=""': ("command",),
    b'command="",from="*",pty': ("command", "from", "pty"),
    b'command="\\"",pty': ("command", "pty"),
    b'command="\\"x",pty': ("command", "pty"),
    b'command="a \\"quoted\\" word, and a comma"': ("command",),
    b'command="no-pty\\",restrict"': ("command",),
    b'permitopen="192.0.2.1:80",permitopen="192.0.2.2:25"': ("permitopen", "permitopen"),
    b'permitlisten="localhost:8080",permitlisten="2222"': ("permitlisten", "permitlisten"),
    b",".join([b'permitopen="h:1"'] * 4097 + [b'permitlisten="1"'] * 4097): (
        *["permitopen"] * 4097,
        *["permitlisten"] * 4097,
    ),
    b'environment="A=1",' * 2000 + b'environment="B=\\""': ("environment",) * 2001,
    b'tunnel="0",command="sh /etc/netstart tun0"': ("tunnel", "command"),
    b'environment="A=1",environment="B=2 3"': ("environment", "environment"),
    b'cert-authority,principals="root"': ("cert-authority", "principals"),
    b",restrict": ("restrict",),
    b"restrict,": ("restrict",),
    b"restrict,,pty": ("restrict", "pty"),
    b",": (),
}

UNKNOWN = "unknown key option"
REFUSED = {
    b"123": UNKNOWN,
    b"foo": UNKNOWN,
    b'foo="bar"': UNKNOWN,
    b"ptyx": UNKNOWN,
    b"pty=": UNKNOWN,
    b'pty="yes"': UNKNOWN,
    b"no-restrict": UNKNOWN,
    b"no-cert-authority": UNKNOWN,
    b"no-no-pty": UNKNOWN,
    b'no-from="*"': UNKNOWN,
    b"command": UNKNOWN,
    b"from": UNKNOWN,
    b'="x"': UNKNOWN,
    b'command="a"b': UNKNOWN,
    b'command="a"pty': UNKNOWN,
    b'command="a"=': UNKNOWN,
    b'restrict "x"': UNKNOWN,
    b'\\"': UNKNOWN,
    b"\xff\xfe": UNKNOWN,
    b"restrict,foo": UNKNOWN,
    b"command=ls": "missing start quote",
    b"command=": "missing start quote",
    b"from='*'": "missing start quote",
    b'command=\\"a': "missing start quote",
    b'command="a",command="b"': 'multiple "command" clauses',
    b'from="*",FROM="*"': 'multiple "from" clauses',
    b'principals="a",principals="a"': 'multiple "principals" clauses',
    b'command="a",command=': 'multiple "command" clauses',
    b'principals="a"': "principals on non-CA key",
    b'environment="A"': "invalid environment string",
    b'environment="a-b=1"': "invalid environment string",
    b'permitopen="h"': "invalid permission port",
    b'permitopen="[::1"': "invalid permission hostname",
    b'permitlisten="h/80"': "invalid permission port",
    b'tunnel="-1"': "invalid tun device",
    b'expiry-time="2099"': "invalid expires time",
    b'from=""': "invalid from criteria",
    b'from="*",pty,command="x",from="*"': 'multiple "from" clauses',
    b'from="!10.0.0.1"': '"from" only excludes addresses',
    b",".join([b'permitopen="h:1"'] * 4098): "too many permission directives",
    b",".join(b'environment="A%d=1"' % n for n in range(1026)): "too many environment strings",
}


@pytest.mark.parametrize("field", ACCEPTED)
def test_options_that_sshd_takes(field: bytes) -> None:
    """sshd(8), AUTHORIZED_KEYS FILE FORMAT: comma-separated, in any case, values in quotes."""
    assert parse_options(field) == Options(ACCEPTED[field])
    assert end_of_options(field + b" " + KEY) == len(field)


def test_the_moments_at_which_a_line_expires() -> None:
    """sshd(8), expiry-time: there may be several, of which the first counts."""
    options = parse_options(b'expiry-time="20991231",expiry-time="20301231Z"')
    assert options.names == ("expiry-time", "expiry-time")
    local, utc = options.expiries
    assert (local.isoformat(), utc.isoformat()) == (
        "2099-12-31T00:00:00",
        "2030-12-31T00:00:00+00:00",
    )


@pytest.mark.parametrize("field", REFUSED)
def test_options_for_which_sshd_ignores_the_line(field: bytes) -> None:
    """sshd(8) and auth-options.c: the first bad option makes the whole line void."""
    options = parse_options(field)
    assert options.problem == REFUSED[field]
    assert not options.opens_session
    assert not options.lets_key_in


def test_the_names_before_a_bad_option_are_kept() -> None:
    """R4: a restricted line is shown for what it is, also when sshd ignores it."""
    assert parse_options(b'restrict,from="*",foo,pty') == Options(("restrict", "from"), UNKNOWN)
    assert parse_options(b'pty,from=""').names == ("pty", "from")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (b"restrict " + KEY, b"restrict"),
        (b"restrict\t" + KEY, b"restrict"),
        (b" " + KEY, b""),
        (b"restrict", b"restrict"),
        (b"", b""),
        (b'command="a b\tc" ' + KEY, b'command="a b\tc"'),
        (b'command="a \\" b" ' + KEY, b'command="a \\" b"'),
        (b'command="a\\\\" ' + KEY, None),
        (b'command="a b ' + KEY, None),
        (b'"', None),
        (b'""', b'""'),
        (b'a"b c"d e', b'a"b c"d'),
        (b'a\\" b', b'a\\"'),
        (b"a\\ b", b"a\\"),
        (b"a\\", b"a\\"),
        (b'"a\\"', None),
    ],
)
def test_where_the_options_field_ends(text: bytes, field: bytes | None) -> None:
    """sshd(8): no spaces are permitted, except within double quotes; a backslash hides a quote."""
    end = end_of_options(text)
    assert (None if end is None else text[:end]) == field


@pytest.mark.parametrize(
    "field", [b"restrict", b'from="10.0.0.0/8"', b'environment="A=1",pty', b","]
)
def test_a_line_with_these_options_lets_a_person_in(field: bytes) -> None:
    """G3: such a line is a way into the machine."""
    assert parse_options(field).opens_session


@pytest.mark.parametrize(
    "field",
    [
        b'command="x"',
        b'restrict,COMMAND="x"',
        b"cert-authority",
        b'cert-authority,principals="a"',
        b'expiry-time="20991231"',
        b'permitopen="h:maybe-a-service"',
    ],
)
def test_a_line_with_these_options_is_no_way_in(field: bytes) -> None:
    """G3: a forced command, a CA, or a line that ends by itself does not keep the door open.

    Neither does one that holds only where a certain name is in services(5).
    """
    options = parse_options(field)
    assert options.problem is None
    assert not options.opens_session


@pytest.mark.parametrize(
    ("field", "lets_in", "depends"),
    [
        (b"restrict", True, False),
        (b'command="x"', True, False),
        (b'expiry-time="20200101"', True, False),
        (b'from="10.0.0.1"', True, True),
        (b'permitopen="h:http"', True, True),
        (b'permitlisten="http"', True, True),
        (b"cert-authority", False, False),
        (b'cert-authority,from="10.0.0.1"', False, True),
    ],
)
def test_whether_sshd_takes_the_key(field: bytes, *, lets_in: bool, depends: bool) -> None:
    """sshd(8): a forced command is a login too; a CA's line is not for the CA's own key."""
    options = parse_options(field)
    assert options.problem is None
    assert (options.lets_key_in, options.depends) == (lets_in, depends)
    assert options.is_authority is not lets_in


_PIECES = (
    b'"',
    b"\\",
    b'\\"',
    b" ",
    b"\t",
    b",",
    b"=",
    b"pty",
    b"from",
    b'from="',
    b"no-",
    b"\xff",
)
fragments = st.lists(st.sampled_from(_PIECES)).map(b"".join)


@given(fragments)
def test_the_field_ends_at_the_first_blank_outside_of_quotes(text: bytes) -> None:
    """sshd(8), written as its own rule: drop every backslash-quote, then count the quotes."""
    end = end_of_options(text)
    cuts = [at for at, byte in enumerate(text) if byte in b" \t"] + [len(text)]
    closed = (at for at in cuts if text[:at].replace(b'\\"', b"").count(b'"') % 2 == 0)
    assert end == next(closed, None)


@pytest.mark.parametrize(
    "piece",
    [b"pty,", b'environment="A=1",', b'tunnel="1",', b'from="x",', b",", b'\\"', b'""', b"a", b'"'],
)
def test_a_long_field_costs_no_more_than_its_length(piece: bytes) -> None:
    """R11, G12: no line of a user's file may keep the others waiting; `make bench` measures it."""
    for read_all in (parse_options, end_of_options):
        growth = growth_of_cost(read_all, piece * (100_000 // len(piece)), times=4)
        assert growth < 10  # 16 is quadratic


@given(fragments | st.binary())
def test_any_field_is_read_without_a_fault(text: bytes) -> None:
    """R6: lines that sshd would not understand are kept, so reading them must not fail."""
    end = end_of_options(text)
    options = parse_options(text[:end])
    assert options.problem is None or options.problem
