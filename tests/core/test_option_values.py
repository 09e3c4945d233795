"""The values of options: each case is what a real sshd did with it, or its source says.

tests/attacks/test_differential_sshd.py puts the same questions to the machine's own sshd.
"""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.option_values import (
    expiry_time,
    from_problem,
    is_tunnel,
    names_service,
    permit_problem,
    variable_name,
)

HOSTNAME, PORT = "invalid permission hostname", "invalid permission port"
CRITERIA, NOBODY = "invalid from criteria", '"from" only excludes addresses'


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"A=1", b"A"),
        (b"_A_1=", b"_A_1"),
        (b"1=a=b c", b"1"),
        (b"", None),
        (b"A", None),
        (b"=1", None),
        (b"A-B=1", None),
        (b"A B=1", None),
        (b" A=1", None),
        (b"\xc3\xa9=1", None),
    ],
)
def test_environment(value: bytes, name: bytes | None) -> None:
    """sshd(8), environment="NAME=value"; valid_env_name: letters, digits and underscores."""
    assert variable_name(value) == name


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        *((value, True) for value in (b"0", b"7", b"any", b"ANY", b" +07", b"-0", b"2147483645")),
        *((value, False) for value in (b"", b"-1", b"2147483646", b"any ", b"0x1", b"1:2", b"- 1")),
        *((value, False) for value in (b"9" * 30, b"1 ", b"++1", b"\xb2")),
        (b"0" * 5000 + b"1", True),
    ],
)
def test_tunnel(value: bytes, *, valid: bool) -> None:
    """sshd(8), tunnel="n"; a2tun: `any`, or what strtonum(3) takes up to SSH_TUNID_MAX."""
    assert is_tunnel(value) is valid


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        *((b"192.0.2.1:80", None), (b":80", None), (b"h:*", None), (b"*:*", None), (b"h/22", None)),
        *(
            (b"[2001:db8::1]:65535", None),
            (b"[::1]/22", None),
            (b"h: +0080", None),
            (b"h:http", None),
        ),
        *((b"", PORT), (b"h", PORT), (b"h:", PORT), (b"h:0", PORT), (b"h:65536", PORT)),
        *((b"h:-1", PORT), (b"h:8 ", PORT), (b"8080", PORT), (b"h:80:90", PORT), (b"h:**", PORT)),
        *((b"*:h/80", PORT), (b"h:ht tp", PORT), (b"[::1]", PORT), (b"h:\xe9", PORT)),
        *((b"[::1]80", HOSTNAME), (b"[::1:80", HOSTNAME), (b"[", HOSTNAME), (b"[]x:1", HOSTNAME)),
        *((b"h" * 1024 + b":1", None), (b"h" * 1025 + b":1", HOSTNAME)),
    ],
)
def test_permitopen(value: bytes, problem: str | None) -> None:
    """sshd(8), permitopen="host:port"; handle_permit: IPv6 in brackets, the port may be `*`."""
    assert permit_problem(value) == problem


@pytest.mark.parametrize(
    ("value", "named"), [(b"h:http", True), (b"h:whois++", True), (b"h:80", False), (b"h", False)]
)
def test_a_port_may_be_a_name_that_only_the_machine_knows(value: bytes, *, named: bool) -> None:
    """a2port: what is no number is looked up in services(5)."""
    assert names_service(value) is named


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (b"127.0.0.1", None),
        (b"*", None),
        (b"10.0.0.0/8,!10.1.2.3", None),
        (b"*.example.com,!pc.example.com", None),
        (b"2001:db8::/32", None),
        (b"0.0.0.0/0", None),
        (b"10.0.0.1/32", None),
        (b" ", None),
        (b"10.0.0.0/x", None),  # no mask, so a pattern for names
        (b"10.0.0.0/129", None),
        (b"example.com/33", None),
        (b"/8", None),
        (b"\xff/8", None),
        (b"%b/8" % (b"1" * 100), None),
        (b"", CRITERIA),
        (b",", CRITERIA),
        (b"!", CRITERIA),
        (b"127.0.0.1,", CRITERIA),
        (b"127.0.0.1,,*", CRITERIA),
        (b"*,!", CRITERIA),
        (b"127.0.0.1/8", CRITERIA),
        (b"10.0.0.0/33", CRITERIA),
        (b"*,::1/64", CRITERIA),
        (b"*,!10.0.0.1/8", CRITERIA),
        (b"127.0/8,0x7f.1", None),
        (b"010.0.0.0/8", None),
        (b"0X0A.0/15", None),
        (b"0/0", None),
        (b"256.0/16", None),  # no address, so a pattern for names
        (b"10.256.0.0/16", None),
        (b"10.65536/8", CRITERIA),
        (b"10.16777216/8", None),
        (b"08.0.0.1/8", None),
        (b"0x.1/8", None),
        (b"10.0.0.0.0/8", None),
        (b"127.1/8", CRITERIA),
        (b"1/8", CRITERIA),
        (b"10.0.0.010/24", CRITERIA),
        (b"10.0.0.0x10/24", CRITERIA),
        (b"!10.0.0.1", NOBODY),
        (b"!*,!10.0.0.0/8", NOBODY),
    ],
)
def test_from(value: bytes, problem: str | None) -> None:
    """ssh_config(5), PATTERNS; addr_match_list: one bad network or empty item voids the list."""
    assert from_problem(value) == problem


def _local(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute)  # noqa: DTZ001  # reason: in the machine's own zone, which the core does not know


def _utc(
    year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0
) -> datetime:
    return datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        (b"20991231", _local(2099, 12, 31)),
        (b"20991231Z", _utc(2099, 12, 31)),
        (b"20991231utc", _utc(2099, 12, 31)),
        (b"209912312358", _local(2099, 12, 31, 23, 58)),
        (b"20991231235859z", _utc(2099, 12, 31, 23, 58, 59)),
        (b"20991231235961Z", _utc(2100, 1, 1, 0, 0, 1)),
        (b"20990231", _local(2099, 3, 3)),
        (b"2099 1 1", _local(2099, 1, 1)),
        (b"19700101000001Z", _utc(1970, 1, 1, 0, 0, 1)),
        *((value, None) for value in (b"", b"2099", b"tomorrow", b"2099-01-01", b"Z", b"UTC")),
        *((value, None) for value in (b"20991301", b"20990001", b"20990100", b"20990132")),
        *((value, None) for value in (b"209901012400", b"209901012360", b"20990101235962")),
        *((value, None) for value in (b"19700101Z", b"19600101", b"00010101", b"2099010124")),
        *((value, None) for value in (b"99991231235961", b"20990101 Z", b"2099011 ", b"\xb209901")),
    ],
)
def test_expiry_time(value: bytes, moment: datetime | None) -> None:
    """sshd(8), expiry-time: YYYYMMDD[HHMM[SS]][Z]; without Z in the machine's own zone."""
    assert expiry_time(value) == moment


@given(st.binary(max_size=40) | st.text("0129 Zz:/[]!,*.-+_=", max_size=40).map(str.encode))
def test_any_value_is_judged(value: bytes) -> None:
    """R11: the file belongs to its user, and no value of it may stop keysync."""
    assert variable_name(value) is None or b"=" in value
    assert is_tunnel(value) in (True, False)
    assert permit_problem(value) in (None, HOSTNAME, PORT)
    assert from_problem(value) in (None, CRITERIA, NOBODY)
    moment = expiry_time(value)
    assert moment is None or moment.year >= 1970
