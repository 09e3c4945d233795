"""Which option values in authorized_keys make sshd ignore a line or refuse its key.

The sources are sshauthopt_parse and handle_permit in auth-options.c, a2port, a2tun, hpdelim2 and
parse_absolute_time in misc.c, and addr_match_list in addrmatch.c. Values are passed unquoted.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address

_MAX_TUNNEL = 0x7FFFFFFF - 2  # SSH_TUNID_MAX
_MAX_PORT = 65535
_MAX_HOST_BYTES = 1024  # one less than NI_MAXHOST
_MAX_ADDRESS_BYTES = 63  # addr_pton_cidr copies into 64 bytes
_MAX_MASK = 128
_IPV4_BYTES = 4
_PART = re.compile(rb"0[xX][0-9A-Fa-f]+|0[0-7]*|[1-9][0-9]*")
_NUMBER = re.compile(rb"[ \t\n\v\f\r]*([+-]?)0*([0-9]{1,10})")  # strtonum(3)
_SERVICE = re.compile(rb"[!-.0-~]*[A-Za-z][!-.0-~]*")
_TWO = rb"([ 0-9][0-9])"  # strptime(3) skips a blank before a number
_TIME = re.compile(rb"([0-9]{4})%b%b(?:%b%b%b?)?(Z|UTC)?" % ((_TWO,) * 5), re.IGNORECASE)


def variable_name(value: bytes) -> bytes | None:
    """The name in the `environment` value NAME=VALUE; None if it is invalid (valid_env_name)."""
    name, equals, _ = value.partition(b"=")
    valid = equals and name.replace(b"_", b"a").isalnum()
    return name if valid else None


def is_tunnel(value: bytes) -> bool:
    """Whether a `tunnel` value is valid: `any` or a device number."""
    number = _number(value)
    return value.lower() == b"any" or (number is not None and 0 <= number <= _MAX_TUNNEL)


def permit_problem(value: bytes) -> str | None:
    """sshd's error message for a `permitopen` or `permitlisten` value HOST:PORT; None if valid."""
    host, rest = _host(value)
    if host is None or len(host) > _MAX_HOST_BYTES:
        return "invalid permission hostname"
    if rest is None or not (rest == b"*" or _is_port(rest) or names_service(value)):
        return "invalid permission port"
    return None


def names_service(value: bytes) -> bool:
    """Whether the port of HOST:PORT is a name, valid only if the machine's services(5) has it."""
    _, rest = _host(value)
    return rest is not None and _SERVICE.fullmatch(rest) is not None


def _host(value: bytes) -> tuple[bytes | None, bytes | None]:
    """Host and port, each None when missing; an address may be in brackets."""
    end = 0
    if value[:1] == b"[":
        end = value.find(b"]") + 1
        if not end or value[end : end + 1] not in (b"", b":", b"/"):
            return None, None
    found = re.compile(b"[:/]").search(value, end)
    if found is None:
        return value, None
    return value[: found.start()], value[found.end() :]


def _is_port(text: bytes) -> bool:
    number = _number(text)
    return number is not None and 0 < number <= _MAX_PORT


def _number(text: bytes) -> int | None:
    found = _NUMBER.fullmatch(text)
    return int(found[1] + found[2]) if found else None


def from_problem(value: bytes) -> str | None:
    """Why a `from` list matches no client at all; None if it can match one."""
    patterns = value.split(b",")
    if any(_is_invalid(pattern.removeprefix(b"!")) for pattern in patterns):
        return "invalid from criteria"
    if all(pattern.startswith(b"!") for pattern in patterns):
        return '"from" only excludes addresses'
    return None


def _is_invalid(pattern: bytes) -> bool:
    """Whether it is empty, or a network with too long a mask or with host bits set."""
    text, _, mask = pattern.partition(b"/")
    if not mask.isdigit() or len(pattern) > _MAX_ADDRESS_BYTES or int(mask) > _MAX_MASK:
        return not pattern
    address = _address(text)
    if address is None:
        return False  # a host name pattern
    number, bits = address
    free = bits - int(mask)
    return free < 0 or number & ((1 << free) - 1) != 0


def _address(text: bytes) -> tuple[int, int] | None:
    """An address as a number, and its size in bits; IPv4 in any notation of inet_aton(3)."""
    parts = text.split(b".")
    if len(parts) <= _IPV4_BYTES and all(map(_PART.fullmatch, parts)):
        *first, last = map(_part, parts)
        free = 8 * (_IPV4_BYTES - len(first))
        fits = last < 1 << free and all(part <= 255 for part in first)
        return (int.from_bytes(bytes(first), "big") << free | last, 32) if fits else None
    try:
        address = ip_address(text.decode("ascii"))
    except ValueError:
        return None
    return int(address), address.max_prefixlen


def _part(text: bytes) -> int:
    if text[:2].lower() == b"0x":
        return int(text, 16)
    return int(text, 8 if text[:1] == b"0" else 10)


def expiry_time(value: bytes) -> datetime | None:
    """The time in an `expiry-time` value, naive when it is in the machine's time zone.

    None if the value is invalid.
    """
    found = _TIME.fullmatch(value)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    zone = timezone.utc if found[7] else None
    try:
        start = datetime(year, month, 1, hour, minute, tzinfo=zone)
        moment = start + timedelta(days=day - 1, seconds=second)
    except (ValueError, OverflowError):
        return None
    # The limits of strptime(3); sshd accepts no time up to the start of 1970.
    valid = 1 <= day <= 31 and second <= 61 and moment.replace(tzinfo=None) > _EPOCH
    return moment if valid else None


_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # reason: compared with naive times
