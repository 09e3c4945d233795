"""What the tests of the core share: a real ssh-keygen as oracle, and keys to play with."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hypothesis import settings

from agent.core.listing import ListedKey
from agent.core.public_key import PublicKey

TAG = b"keysync:managed"
Text = TypeVar("Text", str, bytes)

# Every key type that the core knows (sshd(8), "AUTHORIZED_KEYS FILE FORMAT").
KEY_TYPES = (
    b"ssh-ed25519",
    b"ssh-rsa",
    b"ssh-dss",
    b"ecdsa-sha2-nistp256",
    b"ecdsa-sha2-nistp384",
    b"ecdsa-sha2-nistp521",
    b"sk-ssh-ed25519@openssh.com",
    b"sk-ecdsa-sha2-nistp256@openssh.com",
)

_NOT_A_KEY_FILE = 255


def examples(count: int) -> int:
    """So many of a property, scaled by the profile of Hypothesis (tests/conftest.py)."""
    return max(10, count * settings().max_examples // 100)


# ---- ssh-keygen(1) ----


def ssh_keygen(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """One run of the machine's ssh-keygen."""
    return subprocess.run(
        ["ssh-keygen", *arguments],
        input=data,
        capture_output=True,
        env={**os.environ, "LC_ALL": "C"},
        timeout=60,
        check=False,
    )


@dataclass(frozen=True)
class Printed:
    """What `ssh-keygen -lf` prints for one key; the comment is only known when there is one."""

    bits: int
    fingerprint: str
    comment: str


# Of a key without a comment some versions print what the lines before it left in memory, newlines
# included; so a line of output counts only when it begins as one.
_PRINTED = re.compile(rb"^(\d+) (SHA256:[A-Za-z0-9+/]{43}) (.*)", re.MULTILINE)


def listed_by_ssh_keygen(data: bytes) -> list[Printed]:
    """What `ssh-keygen -lf` prints for a file, in order."""
    done = ssh_keygen("-l", "-f", "-", data=data)
    assert done.returncode in (0, _NOT_A_KEY_FILE), done.stderr
    return [
        Printed(int(bits), fingerprint.decode(), rest.rpartition(b" (")[0].decode(errors="replace"))
        for bits, fingerprint, rest in _PRINTED.findall(done.stdout)
    ]


def fingerprints_by_ssh_keygen(data: bytes) -> list[str]:
    """The fingerprints that `ssh-keygen -lf` prints for a file, in order."""
    return [printed.fingerprint for printed in listed_by_ssh_keygen(data)]


def read_by_ssh_keygen(blobs: Iterable[bytes]) -> dict[int, str]:
    """In one run, which of the blobs ssh-keygen reads as a plain key, and its fingerprint.

    A line's first word must name the type inside the blob (sshkey_read), so each blob is offered
    under every name; the comment carries its number.
    """
    lines = [
        b"%b %b n%d\n" % (name, base64.b64encode(blob), number)
        for number, blob in enumerate(blobs)
        if blob
        for name in KEY_TYPES
    ]
    found = listed_by_ssh_keygen(b"".join(lines))
    return {int(printed.comment[1:]): printed.fingerprint for printed in found}


def make_key(directory: Path, name: str, *flags: str) -> bytes | None:
    """The public line of a new key; None when this ssh-keygen makes no such key."""
    path = directory / name
    done = ssh_keygen("-q", "-N", "", "-C", name, "-f", str(path), *flags)
    if done.returncode != 0:
        return None
    return path.with_suffix(".pub").read_bytes().rstrip(b"\n")


# ---- blobs (RFC 4251 section 5) ----


def string(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def mpint(value: int) -> bytes:
    return string(value.to_bytes(value.bit_length() // 8 + 1, "big") if value else b"")


def fields(blob: bytes) -> list[bytes]:
    """The strings of a well-formed blob: every part of a public key is one."""
    found = []
    while blob:
        end = 4 + int.from_bytes(blob[:4], "big")
        found.append(blob[4:end])
        blob = blob[end:]
    return found


def joined(parts: Iterable[bytes]) -> bytes:
    return b"".join(map(string, parts))


def blob_of(line: bytes) -> bytes:
    return base64.b64decode(line.split(b" ")[1])


def ed25519_blob(seed: int) -> bytes:
    """RFC 8709 section 4. Any 32 bytes will do: OpenSSH looks at them only when it verifies."""
    return joined([b"ssh-ed25519", hashlib.sha256(b"%d" % seed).digest()])


def rsa_blob(bits: int, seed: int = 0, exponent: int = 65537) -> bytes:
    """RFC 4253 section 6.6, with an odd number of that size for a modulus."""
    digest = hashlib.shake_256(b"%d" % seed).digest(bits // 8)
    modulus = int.from_bytes(digest, "big") >> 1 | 1 << (bits - 1) | 1
    return string(b"ssh-rsa") + mpint(exponent) + mpint(modulus)


def security_key_blob(plain: bytes) -> bytes:
    """The `sk-` key around a plain one (PROTOCOL.u2f); a real one would need the hardware."""
    name, *rest = fields(plain)
    return joined([b"sk-" + name + b"@openssh.com", *rest, b"ssh:"])


def text_of(blob: bytes, comment: str = "", name: bytes | None = None) -> str:
    """A line with this blob, whatever it holds."""
    first = fields(blob)[0] if name is None else name
    line = first + b" " + base64.b64encode(blob) + b" " + comment.encode("utf-8")
    return line.decode("utf-8").rstrip(" ")


# ---- cost ----


def growth_of_cost(work: Callable[[Text], object], text: Text, times: int) -> float:
    """How much more processor time the work takes for a text that is so many times longer."""

    def cost(of: Text) -> float:
        start = time.process_time()
        work(of)
        return time.process_time() - start

    short, long = (min(cost(one) for _ in range(5)) for one in (text, text * times))
    return long / max(short, 1e-4)


# ---- made-up keys of the core's own type, for documents, listings and plans ----


def ed25519(seed: int) -> PublicKey:
    return PublicKey.from_blob(ed25519_blob(seed))


def listed(key: PublicKey, comment: str = "", key_id: int | None = None) -> ListedKey:
    return ListedKey(key, comment, key_id)


def by_blob(*keys: ListedKey) -> Mapping[bytes, ListedKey]:
    return {one.key.blob: one for one in keys}
