"""The points that OpenSSH takes for an ECDSA key, with ssh-keygen as the oracle."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from agent.core.curves import CURVES, P256, Curve
from tests.core.support import blob_of, fields, joined, read_by_ssh_keygen

_BITS = {curve.bits: curve for curve in CURVES}


def _octets(curve: Curve, x: int, y: int) -> bytes:
    """SEC 1, section 2.3.3: the uncompressed form."""
    size = (curve.bits + 7) // 8
    return b"\4" + x.to_bytes(size, "big") + y.to_bytes(size, "big")


def _root(curve: Curve, x: int) -> int | None:
    """A y for this x, if there is one: each p here is 3 modulo 4, so a power is the root."""
    square = (x**3 - 3 * x + curve.b) % curve.p
    y = pow(square, (curve.p + 1) // 4, curve.p)
    return y if y * y % curve.p == square else None


def _on_curve_from(curve: Curve, x: int) -> bytes:
    """The point of the first x from here on that has one."""
    while (y := _root(curve, x)) is None:
        x += 1
    return _octets(curve, x, y)


def _blob(curve: Curve, point: bytes) -> bytes:
    return joined([b"ecdsa-sha2-" + curve.name, curve.name, point])


@pytest.mark.parametrize("bits", _BITS)
def test_a_real_key_is_on_its_curve(bits: int, keys: Mapping[str, bytes]) -> None:
    """RFC 5656 section 3.1: Q is a point on the curve that the key names."""
    point = fields(blob_of(keys[f"ecdsa-{bits}"]))[2]
    assert [curve.bits for curve in CURVES if curve.contains(point)] == [bits]


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name.decode())
def test_edges_of_the_curve_are_judged_as_by_openssh(curve: Curve) -> None:
    """sshkey_ec_validate_public: on the curve, not tiny, below p and the order, uncompressed."""
    half = curve.order.bit_length() // 2
    below = min(curve.p, curve.order - 1)
    good = _on_curve_from(curve, 3 << (curve.bits - 3))
    size = (curve.bits + 7) // 8
    x, y = good[1 : 1 + size], good[1 + size :]
    x_number, y_number = int.from_bytes(x, "big"), int.from_bytes(y, "big")
    x_plus_p = ((x_number + curve.p) % (1 << 8 * size)).to_bytes(size, "big")
    points = {
        "a point": good,
        "the mirrored point": _octets(curve, x_number, curve.p - y_number),
        "y one off": _octets(curve, x_number, y_number + 1),
        "x and y exchanged": b"\4" + y + x,
        "x of half the bits": _on_curve_from(curve, 1 << (half - 1)),
        "x of one bit more": _on_curve_from(curve, 1 << half),
        "x of zero": _on_curve_from(curve, 0),
        "the largest x": _on_curve_from(curve, below - 64),
        "x and y are p": _octets(curve, curve.p, curve.p),
        "x plus p": b"\4" + x_plus_p + y,
        "all ones": b"\4" + b"\xff" * (2 * size),
        "zeros": _octets(curve, 0, 0),
        "infinity": b"\0",
        "no octets": b"",
        "compressed": bytes([2 + (y[-1] & 1)]) + x,
        "hybrid": bytes([6 + (y[-1] & 1)]) + x + y,
        "one byte short": good[:-1],
        "one byte more": good + b"\0",
        "a zero in front of each": b"\4\0" + x + b"\0" + y,
    }
    read = read_by_ssh_keygen(_blob(curve, point) for point in points.values())
    accepted = {name for number, name in enumerate(points) if number in read}
    assert {name for name, point in points.items() if curve.contains(point)} == accepted
    assert "a point" in accepted
    assert "x of half the bits" not in accepted


def test_every_bit_of_a_point_counts(keys: Mapping[str, bytes]) -> None:
    """RFC 5656 section 3.1: with any bit turned over it is no point of the curve any more."""
    point = fields(blob_of(keys["ecdsa-256"]))[2]
    for bit in range(8 * len(point)):
        turned = (int.from_bytes(point, "big") ^ 1 << bit).to_bytes(len(point), "big")
        assert not P256.contains(turned)
