"""Public keys whose private halves nobody has, the same in every run."""

import base64
import hashlib

from agent.core.curves import P256

_COMMENTED = "# added by hand"


def listed_lines(count: int) -> list[str]:
    """The account's keys, as people paste them."""
    return [_ed25519(f"listed {at}", f"person-{at:04}@laptop") for at in range(count)]


def file_lines(count: int) -> list[str]:
    """What a crowded key file holds: of 20 lines 16 plain keys, 2 restricted ones, 2 others."""
    return [_file_line(at) for at in range(count)]


def _file_line(at: int) -> str:
    seed, comment, kind = f"line {at}", f"user-{at:06}@host", at % 20
    if kind == 0:
        return ""
    if kind == 1:
        return f"{_COMMENTED} {at}"
    if kind in (2, 3):
        return f'from="10.0.0.0/8,192.168.0.0/16",no-pty {_ed25519(seed, comment)}'
    if kind in (4, 5, 6):
        return _rsa(seed, comment)
    return _ecdsa(seed, comment) if kind == 7 else _ed25519(seed, comment)


def _ed25519(seed: str, comment: str) -> str:
    """RFC 8709 section 4."""
    return _line(comment, b"ssh-ed25519", _stream(seed, 32))


def _rsa(seed: str, comment: str) -> str:
    """RFC 4253 section 6.6, with an odd modulus of 2048 bits."""
    body = _stream(seed, 254)
    return _line(comment, b"ssh-rsa", b"\1\0\1", b"\0\xc1" + body + b"\1")


def _ecdsa(seed: str, comment: str) -> str:
    """RFC 5656 section 3.1: the first point of P-256 at or after an x from the seed."""
    x, p = int.from_bytes(_stream(seed, 31), "big") + (1 << 255), P256.p
    while True:
        square = (x * x * x - 3 * x + P256.b) % p
        y = pow(square, (p + 1) // 4, p)
        if y * y % p == square:
            point = b"\4" + x.to_bytes(32, "big") + y.to_bytes(32, "big")
            return _line(comment, b"ecdsa-sha2-nistp256", b"nistp256", point)
        x += 1


def _line(comment: str, *fields: bytes) -> str:
    blob = b"".join(len(value).to_bytes(4, "big") + value for value in fields)
    return f"{fields[0].decode()} {base64.b64encode(blob).decode()} {comment}"


def _stream(seed: str, size: int) -> bytes:
    return hashlib.shake_256(seed.encode()).digest(size)
