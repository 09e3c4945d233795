"""The three NIST curves of RFC 5656 section 10.1, for checking that a point is on its curve.

The numbers are those of FIPS 186-4, appendix D.1.2.
"""

from __future__ import annotations

from dataclasses import dataclass

_UNCOMPRESSED = 4  # SEC 1, section 2.3.3: the only form that OpenSSH accepts


@dataclass(frozen=True, slots=True)
class Curve:
    """y^2 = x^3 - 3x + b over the prime field p, with a base point of the given order."""

    name: bytes
    bits: int
    p: int
    b: int
    order: int

    def contains(self, point: bytes) -> bool:
        """Whether OpenSSH accepts `point` (octets of SEC 1, section 2.3.3) as a public key.

        The curve equation, and the bounds of sshkey_ec_validate_public in sshkey.c.
        """
        size = (self.bits + 7) // 8
        if len(point) != 1 + 2 * size or point[0] != _UNCOMPRESSED:
            return False
        x = int.from_bytes(point[1 : 1 + size], "big")
        y = int.from_bytes(point[1 + size :], "big")
        half = self.order.bit_length() // 2
        if min(x.bit_length(), y.bit_length()) <= half or max(x, y) >= min(self.p, self.order - 1):
            return False
        return (y * y - (x * x * x - 3 * x + self.b)) % self.p == 0


P256 = Curve(
    b"nistp256",
    256,
    0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF,
    0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
    0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
)
P384 = Curve(
    b"nistp384",
    384,
    2**384 - 2**128 - 2**96 + 2**32 - 1,
    0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
    0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
)
P521 = Curve(
    b"nistp521",
    521,
    2**521 - 1,
    0x0051953EB9618E1C9A1F929A21A0B68540EEA2DA725B99B315F3B8B489918EF109E156193951EC7E937B1652C0BD3BB1BF073573DF883D2C34F1EF451FD46B503F00,
    0x01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409,
)
CURVES = (P256, P384, P521)
