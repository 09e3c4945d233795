"""Where the search begins: well-formed keys of every type, and what is made of them.

The bytes are built here from the RFCs alone, so that the agent's own writer does not vouch for its
reader.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

TAG = b"keysync:managed"
_EXAMPLE = Path(__file__).parents[1] / "config.example.yaml"
_CURVES: tuple[ec.EllipticCurve, ...] = (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())


def string(value: bytes) -> bytes:
    """RFC 4251 section 5."""
    return len(value).to_bytes(4, "big") + value


def mpint(value: int) -> bytes:
    """RFC 4251 section 5, for a positive number."""
    return string(value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _odd(bits: int) -> int:
    return int.from_bytes(bytes(range(256)) * 8, "big") >> (2048 * 8 - bits) | 1 << (bits - 1) | 1


def blobs() -> list[bytes]:
    """One blob of each type that OpenSSH knows, and RSA in three sizes."""
    point32 = bytes(range(32))
    found = [string(b"ssh-ed25519") + string(point32)]
    found += [string(b"ssh-rsa") + mpint(65537) + mpint(_odd(bits)) for bits in (1024, 2048, 4096)]
    found.append(string(b"ssh-dss") + mpint(_odd(1024)) + mpint(_odd(160)) + mpint(2) + mpint(3))
    for curve in _CURVES:
        point = ec.derive_private_key(0xC0FFEE, curve).public_key()
        octets = point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        size = str(curve.key_size).encode()
        name, nist = b"ecdsa-sha2-nistp" + size, b"nistp" + size
        found.append(string(name) + string(nist) + string(octets))
        if size == b"256":
            sk = b"sk-ecdsa-sha2-nistp256@openssh.com"
            found.append(string(sk) + string(nist) + string(octets) + string(b"ssh:"))
    found.append(string(b"sk-ssh-ed25519@openssh.com") + string(point32) + string(b"ssh:"))
    return found


def _name(blob: bytes) -> bytes:
    return blob[4 : 4 + blob[3]]


def lines() -> list[bytes]:
    """One line for each blob."""
    return [_name(blob) + b" " + base64.b64encode(blob) + b" me@home" for blob in blobs()]


def documents() -> list[bytes]:
    """Whole files, with everything that may stand around a key."""
    ed25519, rsa, *_, last = lines()
    other = ed25519.replace(b"AAECAwQF", b"AQECAwQF")
    options = b'restrict,pty,from="10.0.0.0/8,!*.example.com",command="echo \\"hi\\" there"'
    return [
        b"",
        b"\n".join(lines()) + b"\n",
        b"# mine\r\n" + ed25519 + b" " + TAG + b"\r\n\n" + other,
        options + b" " + ed25519 + b"\n" + ed25519 + b" " + TAG + b"\n" + rsa + b"\n",
        options + b" " + ed25519 + b"\n" + ed25519 + b"\n",
        b'\tcert-authority,principals="root" ' + last + b"\n" + other + b"\0junk\n",
        b'expiry-time="20991231Z",environment="A=1",permitopen="h:80",tunnel="0" ' + other,
        ed25519 + b"\n" + ed25519 + b" " + TAG + b"\n" + other + b" \xff\xe2\x80\xa8ssh-rsa AAAA",
    ]


def options() -> list[bytes]:
    """Options fields that sshd takes, and some that it does not."""
    return [
        b'restrict,no-pty,from="*.example.com,!10.0.0.1/32",command="say \\"hi\\""',
        b'environment="A=1",permitopen="[::1]:*",permitlisten="8080",tunnel="any"',
        b'expiry-time="20300101",expiry-time="203001011200Z",cert-authority,principals="a,b"',
        b'no-touch-required,verify-required,,x11-forwarding,user-rc="yes"',
        b'command="never closed',
    ]


def entries() -> list[bytes]:
    """Texts as they are pasted on the console's page."""
    ed25519, rsa, *_ = lines()
    odd = [b'"' + ed25519 + b'"', ed25519 + b" " + rsa, ed25519 + b"\r\n", b"restrict " + rsa]
    words = [b"-----BEGIN OPENSSH PRIVATE KEY-----", b"~/.ssh/id_rsa.pub", b"ssh-rsa \xe2\x80\xae"]
    return [*lines(), *odd, *words]


def listings() -> list[bytes]:
    """Bodies of the API's answers."""
    texts = [line.decode() for line in lines()]
    entries = [
        {"id": at, "user_id": 7, "key": text, "deleted_at": None} for at, text in enumerate(texts)
    ]
    odd = {"id": "12", "user_id": 7, "public_key": texts[0] + "\n", "deleted_at": "2026-01-01"}
    answers: Iterable[object] = [
        [],
        entries,
        {"ssh_keys": entries[:2]},
        [odd, {"id": None, "ssh_key": texts[1]}, {"id": 3, "key": 5}],
        {"success": False, "error": "auth_error", "msg": "Invalid user key"},
        {"detail": "API requests too frequent"},
    ]
    return [json.dumps(answer).encode() for answer in answers] + [b"<html>", b""]


def states() -> list[bytes]:
    """A ledger with something in every field, as docs and the agent's first version have it."""
    fingerprint = "SHA256:" + "A" * 43
    now = "2026-01-01T00:00:00Z"
    key = {
        "fingerprint": fingerprint,
        "key_type": "ssh-ed25519",
        "comment": "me",
        "key_id": 1,
        "first_listed": now,
        "revoked_at": None,
    }
    rejected = {"key_id": 2, "reason": "newline", "detail": "x", "fingerprints": [fingerprint]}
    failure = {"at": now, "kind": "timeout", "message": "m", "hint": "h", "solved_at": now}
    full = {
        "schema": 1,
        "account_id": 7,
        "keys": [key],
        "rejected": [rejected],
        "hold": {"reason": "empty_listing", "digest": "d", "seen": 1, "needed": 3},
        "last_success": now,
        "last_failure": failure,
        "targets": [{"user": "root", "path": "/root/.ssh/a", "result": "changed", "at": now}],
    }
    empty = {**full, "keys": [], "rejected": [], "hold": None, "last_failure": None, "targets": []}
    return [json.dumps(one, indent=1).encode() for one in (full, empty, {**full, "schema": 2})]


def configurations() -> list[bytes]:
    """The documented example, and one with the parts that the example only names."""
    pins = "pins:\n" + "".join(f"  - {line.decode()}\n" for line in lines()[:2])
    more = "targets:\n  - {user: root, path: /root/.ssh/authorized_keys}\npolicy:\n"
    return [
        _EXAMPLE.read_bytes(),
        (more + "  unmanaged: remove\n  max_staleness: 1h\n" + pins).encode(),
        b"api: {url: 'http://127.0.0.1:9', timeout: 2.5s}\npoll: {interval: 1m}\n",
    ]


# libFuzzer puts these into its inputs; it cannot guess words that are compared as a whole.
_WORDS = (
    *(b"ssh-ed25519 AAAA", b"ssh-rsa AAAA", b"sk-ssh-ed25519@openssh.com", b"rsa-sha2-512"),
    *(b"AAAAC3NzaC1lZDI1NTE5AAAAI", b"AAAAB3NzaC1yc2E", b"-cert-v01@openssh.com", b"ED25519"),
    *(b" " + TAG, b'command="', b'from="', b"restrict,", b"cert-authority", b"no-", b'\\"', b'",'),
    *(b"\0", b"\r\n", b"\n", b"\t", b"# ", b"\xe2\x80\xa8", b"\xe2\x80\xae", b"%0A"),
    *(b'"deleted_at"', b'"user_id"', b'"key"', b'"ssh_keys"', b'"error"', b"auth_error"),
    *(b"\\u2028", b"PRIVATE KEY"),
    *(b'expiry-time="2099', b'environment="', b'permitopen="', b'permitlisten="', b'tunnel="'),
    *(b'"fingerprints"', b'"schema": 1', b"2026-01-01T00:00:00Z", b"null", b"<<: *a", b"&a", b"!!"),
)


def dictionary() -> str:
    """The words in libFuzzer's own format."""
    quoted = ("".join(f"\\x{byte:02x}" for byte in word) for word in _WORDS)
    return "".join(f'"{word}"\n' for word in quoted)
