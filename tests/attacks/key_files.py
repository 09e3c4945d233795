"""Generated key files for the comparison with a real sshd: well-formed, odd and broken lines."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

TAG = b"keysync:managed"
_HERE = b"127.0.0.1"

# Options by what becomes of a line that has nothing else. A line is void when one of its options
# is; it depends on the address or on services(5) when one of them does.
VALID = (
    *(b"restrict", b"RESTRICT", b"pty", b"no-pty", b"No-X11-forwarding", b"user-rc", b"no-user-rc"),
    *(b"agent-forwarding", b"port-forwarding", b"no-touch-required", b"verify-required", b""),
    *(b'command="echo hi"', b'COMMAND="say \\"hi\\", there"', b'command=""', b'command="a\\\\b"'),
    *(b'environment="A=1"', b'environment="A_1="', b'environment="1=a b=\\"c\\""'),
    *(b'permitopen="192.0.2.1:80"', b'permitopen=":80"', b'permitopen="h:*"', b'permitopen="h/22"'),
    *(b'permitopen="[2001:db8::1]:65535"', b'permitopen="h: +0080"', b'permitopen="*:*"'),
    *(b'permitlisten="8080"', b'permitlisten="*"', b'permitlisten="localhost:0022"'),
    *(b'tunnel="0"', b'tunnel="any"', b'tunnel="ANY"', b'tunnel="2147483645"', b'tunnel=" +7"'),
    *(b'expiry-time="20991231"', b'expiry-time="209912312359"', b'expiry-time="20991231235961"'),
    *(b'expiry-time="20990231"', b'expiry-time="2099 1 1"', b'expiry-time="99991231235959"'),
)
PAST = (b'expiry-time="20200101"', b'expiry-time="19700103000000"', b'expiry-time="202001011200"')
INVALID = (
    *(b"foo", b"ptyx", b"pty=", b'pty="yes"', b"no-restrict", b"command", b"from", b"no-no-pty"),
    *(b"command=ls", b"command='ls'", b'command="a"b', b"command=", b'="x"', b'\\"', b"\xff"),
    *(b"no-cert-authority", b'foo="b"', b'environment=""', b'environment="A"', b'environment="=1"'),
    *(b'environment="A-B=1"', b'environment="A B=1"', b'environment="\xc3\xa9=1"'),
    *(b'permitopen=""', b'permitopen="h"', b'permitopen="h:"', b'permitopen="h:0"', b'tunnel=""'),
    *(b'permitopen="h:65536"', b'permitopen="[::1]80"', b'permitopen="[::1:80"', b'tunnel="-1"'),
    *(b'permitopen="h:-1"', b'permitopen="h:8 "', b'permitopen="8080"', b'permitlisten=""'),
    *(b'permitlisten="h/80"', b'permitlisten="0"', b'tunnel="2147483646"', b'tunnel="any "'),
    *(b'tunnel="0x1"', b'tunnel="1:2"', b'tunnel="-0x"', b'tunnel="99999999999999999999"'),
    *(b'permitopen="%b:1"' % (b"h" * 1025), b'expiry-time=""', b'expiry-time="2099"'),
    *(b'expiry-time="20991301"', b'expiry-time="20990001"', b'expiry-time="20990100"'),
    *(b'expiry-time="20990132"', b'expiry-time="2099010124"', b'expiry-time="209901012400"'),
    *(b'expiry-time="209901012360"', b'expiry-time="20990101235962"', b'expiry-time="tomorrow"'),
    *(b'expiry-time="2099-01-01"', b'expiry-time="19600101"', b'expiry-time="20991 1 "'),
    *(b'principals="admin"', b'principals=""'),
)
FROM_HERE = (
    *(b'from="127.0.0.1"', b'from="127.0.0.0/8"', b'from="*"', b'FROM="127.0.0.1/32,10.0.0.0/8"'),
    *(b'from="10.0.0.1,127.0.0.?"', b'from="!10.0.0.0/8,127.*"', b'from="*,!192.0.2.1"'),
    *(b'from="0.0.0.0/0"', b'from="::1,127.0.0.1"', b'from="10.0.0.1/129,127.0.0.1"'),
    *(b'from="127.0/8"', b'from="0x7f.1"', b'from="010.0/8,127.*"', b'from="256.1/8,127.*"'),
    *(b'from="10.16777216/8,127.*"', b'from="0x.1/8,127.*"', b'from="08.1/8,127.*"'),
)
FROM_ELSEWHERE = (
    *(b'from="203.0.113.1"', b'from="10.0.0.0/8"', b'from="*,!127.0.0.1"', b'from="!*,127.0.0.1"'),
    *(b'from="*.example.com"', b'from="127.0.0.1/x"', b'from=" "', b'from=" 127.0.0.1"'),
    *(b'from="::1"', b'from="127.0.0.2,10.0.0.1"'),
)
FROM_NOWHERE = (
    *(b'from=""', b'from=","', b'from="127.0.0.1,,10.0.0.1"', b'from="127.0.0.1,"', b'from="!"'),
    *(b'from="127.0.0.1/8"', b'from="127.0.0.1,10.0.0.0/33"', b'from="127.0.0.1,10.1.0.0/8"'),
    *(b'from="!127.0.0.1"', b'from="!10.0.0.1"', b'from="127.0.0.1,::1/64"', b'from="*,!"'),
    *(b'from="127.1/8"', b'from="1/8,127.0.0.1"', b'from="10.65536/8,*"', b'from="1.0x10/24,*"'),
)
SERVICES = (b'permitopen="h:http"', b'permitlisten="ssh"', b'permitopen="h:no-such-service"')
# What stands in front of a key, 8 KiB to 1 MiB of it, and whether the key gets in by the line.
LONG = (
    *(("yes", b" " * size) for size in (9_000, 70_000)),
    *(("yes", b'command="%b" ' % (b"x" * size)) for size in (9_000, 17_000, 70_000, 1_000_000)),
    *(("yes", b'environment="A=%b" ' % (b'\\"' * size)) for size in (9_000, 70_000)),
    ("yes", b"pty," * 20_000 + b"restrict "),
    ("yes", b'expiry-time="20991231",' * 30_000 + b"pty "),
    ("yes", b'tunnel="1",' * 30_000 + b"pty "),
    ("no", b"pty," * 20_000 + b"ptyx "),
    ("no", b'expiry-time="20991231",' * 30_000 + b'expiry-time="20200101" '),
    ("no", b'environment="A=%b"x ' % (b"x" * 70_000)),
    ("depends", b'from="%b127.0.0.1" ' % (b"10.0.0.1," * 9_000)),
)
FOR_ADMIN = b'principals="other,admin"'
FOR_OTHERS = b'principals="other"'
_UNDECIDED = (*FROM_HERE, *FROM_ELSEWHERE, *SERVICES)


def known_service(option: bytes) -> bool:
    """Whether this machine's services(5) holds the name in one of SERVICES."""
    name = option.rstrip(b'"').rpartition(b'"')[2].rpartition(b":")[2].decode()
    try:
        socket.getservbyname(name, "tcp")
    except OSError:
        return False
    return True


def decides(raw: bytes) -> bool | None:
    """What sshd does here and now with a line that depends: every condition in it must hold.

    None for a spoiled line, whose conditions may be any.
    """
    if raw.rstrip(b"\r").endswith(_SPOILED):
        return None
    there = [option for option in _UNDECIDED if option in raw]
    return all(known_service(one) if one in SERVICES else one in FROM_HERE for one in there)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file to be, in its parts."""

    options: bytes | None
    key: bytes
    comment: bytes
    before: bytes
    between: bytes
    behind: bytes

    def __bytes__(self) -> bytes:
        front = b"" if self.options is None else self.options + self.between
        name, data = self.key.split(b" ")[:2]
        body = name + self.between + data
        return self.before + front + body + self.comment + self.behind


_ONE_OPTION = st.one_of(
    *[st.sampled_from(VALID)] * 6,
    st.sampled_from(INVALID),
    st.sampled_from(_UNDECIDED),
    st.sampled_from((*PAST, *FROM_NOWHERE)),
    st.sampled_from((b"cert-authority", b"cert-authority," + FOR_ADMIN, FOR_OTHERS)),
)
_FIELDS = st.lists(_ONE_OPTION, min_size=1, max_size=4).map(b",".join)
_LONG = st.sampled_from(
    (
        b'environment="A=%b"' % (b"x" * 20_000),
        b",".join([b'permitopen="h:1"'] * 4097),
        b",".join([b'permitopen="h:1"'] * 4098),
        b",".join(b'environment="A%d=1"' % at for at in range(1025)),
        b",".join(b'environment="A%d=1"' % at for at in range(1026)),
        b"," * 10_000,
    )
)
_NOISE = st.sampled_from(
    (b'"', b"\\", b'\\"', b" ", b"\t", b",", b"=", b"\0", b"\r", b"\xff", b"#")
)


_SPOILED = b" spoiled"


@st.composite
def _spoiled(draw: st.DrawFn, texts: st.SearchStrategy[bytes]) -> bytes:
    """A text with a piece of noise put in, or a byte taken out, at some place."""
    text = draw(texts)
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(_NOISE | st.just(b"")) + text[at + draw(st.integers(0, 1)) :] + _SPOILED


_OPTIONS = st.one_of(*[st.none()] * 4, *[_FIELDS] * 4, _LONG)
_OTHERS = (
    *(
        b"",
        b"# comment",
        b"#",
        b"  # ssh-ed25519 AAAA",
        b"words of a person",
        b"\r",
        b"\0",
        b"\xff",
    ),
    *(b"ssh-ed25519", b"ssh-ed25519 AAAA", b"ssh-foo AAAA", b"-----BEGIN OPENSSH PRIVATE KEY-----"),
)
_COMMENTS = (
    *(b"", b"", b" me@home", b" " + TAG, b" me " + TAG, b"\tme", b" me # " + TAG + b" x", b"="),
    *(b" \xe2\x80\xa8ssh-rsa AAAA", b" \xff\xfe", b"\0junk", b" " + b"c" * 9_000, b"A", b"\v"),
)


@st.composite
def _key_lines(draw: st.DrawFn, keys: Sequence[bytes]) -> bytes:
    parts = Line(
        draw(_OPTIONS),
        draw(st.sampled_from(keys)),
        draw(st.sampled_from(_COMMENTS)),
        draw(st.sampled_from((*[b""] * 9, b" ", b"\t ", b"\r", b"\xef\xbb\xbf", b'"', b"#"))),
        draw(st.sampled_from((*[b" "] * 4, b"\t", b"  ", b" \t"))),
        draw(st.sampled_from((b"", b"", b"", b"\r", b" ", b'"', b"\t\r"))),
    )
    return bytes(parts)


@st.composite
def _damaged_keys(draw: st.DrawFn, keys: Sequence[bytes]) -> bytes:
    """The declared type, the data or both are not what they should be; or an alias is."""
    name, data = draw(st.sampled_from(keys)).split(b" ")[:2]
    other = draw(st.sampled_from(keys)).split(b" ")[0]
    aliases = (b"rsa-sha2-256", b"rsa-sha2-512", b"webauthn-sk-ecdsa-sha2-nistp256@openssh.com")
    half = len(data) // 2
    names = st.sampled_from((name, name, name, other, name.upper(), *aliases))
    spoils = (
        *(data, data[:-1], data[:-4], data[1:], data + b"=", data.rstrip(b"="), data + b"AAAA"),
        *(data[:half] + byte + data[half:] for byte in (b" ", b"\r", b"\v", b"-", b"\0", b"\xa0")),
        *(data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :], data * 2, b""),
    )
    return draw(names) + b" " + draw(st.sampled_from(spoils))


@st.composite
def files(draw: st.DrawFn, keys: Mapping[str, bytes]) -> bytes:
    """A whole key file of some lines around these public key lines."""
    lines = tuple(keys.values())
    whole = _key_lines(lines)
    kinds = st.one_of(
        *(whole, whole, whole),
        st.sampled_from(lines).map(lambda key: key + b" " + TAG),
        _spoiled(whole),
        _damaged_keys(lines),
        st.tuples(_FIELDS, _damaged_keys(lines)).map(b" ".join),
        st.sampled_from(_OTHERS),
    )
    ends = st.sampled_from((b"\n", b"\n", b"\n", b"\n", b"\n", b"\r\n", b"", b"\n\n"))
    parts = draw(st.lists(st.tuples(kinds, ends), min_size=4, max_size=12))
    return b"".join(line + end for line, end in parts)
