"""What the page makes of a pasted text, of a browser's name and of a moment, without a server."""

from __future__ import annotations

import base64
import struct
import subprocess
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from sandbox.account import StoredKey
from sandbox.instance import Instance
from sandbox.page.device import in_words
from sandbox.page.judge import judge
from sandbox.page.key_text import read_key, several, shortened
from sandbox.page.private_key import is_private
from sandbox.page.templates import distance
from tests.support.machine import fingerprint, key_line


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance() as running:
        yield running


def _line(key_type: str, *fields: bytes, comment: str = "someone") -> str:
    blob = b"".join(struct.pack(">I", len(f)) + f for f in (key_type.encode(), *fields))
    return f"{key_type} {base64.b64encode(blob).decode()} {comment}"


@pytest.mark.parametrize(
    ("key_type", "bits"), [("ed25519", None), ("rsa", 2048), ("ecdsa", 256), ("ecdsa", 521)]
)
def test_the_fingerprint_is_that_of_ssh_keygen(
    instance: Instance, key_type: str, bits: int | None
) -> None:
    """The page's own reading agrees with ssh-keygen -lf, and doubts nothing."""
    pair = instance.keygen(f"{key_type}{bits}", key_type=key_type, bits=bits, comment="a b c")
    read = read_key(pair.public_line)
    assert (read.fingerprint, read.comment, read.doubt) == (pair.fingerprint, "a b c", None)


def test_a_private_key_is_known(instance: Instance) -> None:
    """Also without its first line, and in PuTTY's form."""
    private = instance.keygen("private").private_path.read_text()
    assert is_private(private)
    assert is_private("\n".join(private.splitlines()[1:]))
    assert is_private("PuTTY-User-Key-File-3: ssh-ed25519")
    assert not is_private(key_line("private"))
    assert is_private("-----BEGIN RSA PRIVATE\u00a0KEY-----")


@pytest.mark.parametrize("key_type", ["rsa", "ecdsa"])
@pytest.mark.parametrize(
    ("form", "passphrase"),
    [("PEM", ""), ("PKCS8", ""), ("PKCS8", "secret"), ("RFC4716", ""), ("RFC4716", "secret")],
)
def test_the_bare_body_of_a_private_key_is_known(
    tmp_path: Path, key_type: str, form: str, passphrase: str
) -> None:
    """PKCS #1, SEC 1, PKCS #8 and OpenSSH's own, without BEGIN and END, however it is wrapped."""
    path = tmp_path / "key"
    command = ["ssh-keygen", "-q", "-t", key_type, "-m", form, "-N", passphrase, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=60)
    lines = path.read_text().splitlines()[1:-1]
    for between in ("\n", "", " ", "\n> "):
        assert is_private(f"my key: {between.join(lines)}"), between
    assert not is_private(path.with_suffix(".pub").read_text())


def test_public_forms_are_not_private(instance: Instance) -> None:
    """The PEM bodies of a public key begin much alike."""
    pair = instance.keygen("public-forms", key_type="rsa", bits=2048)
    for form in ("PEM", "PKCS8", "RFC4716"):
        command = ["ssh-keygen", "-e", "-m", form, "-f", f"{pair.private_path}.pub"]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        assert "PUBLIC KEY" in done.stdout
        assert not is_private("\n".join(done.stdout.splitlines()[1:-1]))
        assert not is_private(done.stdout)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("hello", "no_type"),
        ("/home/me/.ssh/id_ed25519.pub", "path"),
        ("id_rsa.pub", "path"),
        ("ssh-ed25519", "no_data"),
        ("ssh-ed25519 AAAA!", "not_base64"),
        (key_line("x").replace("ssh-ed25519", "ssh-rsa"), "mismatch"),
        (" ".join(key_line("x").split()[:2])[:-8], "mismatch"),
        ("restrict " + key_line("x"), "no_type"),
        (key_line("x") + "\n" + key_line("y"), "several"),
        (key_line("x") + " " + key_line("y"), "several"),
        (_line("ssh-ed25519", b"k" * 32, b"extra"), "cut_off"),
        (_line("ssh-dss", b"p", b"q", b"g", b"y"), "dsa"),
        (_line("ssh-rsa", b"\1\0\1", b"\0" + b"\xff" * 128), "small"),
        (key_line("x") + "\n", "blank"),
    ],
)
def test_what_cannot_work_is_doubted(text: str, code: str) -> None:
    """Every doubt has its own name and a sentence."""
    doubt = read_key(text).doubt
    assert doubt is not None
    assert (doubt.code, doubt.text[-1]) == (code, ".")


def test_garbage_has_no_fingerprint_and_a_weak_key_has_one() -> None:
    """What is no key cannot be found in a key file; what is a bad key can."""
    assert read_key("garbage").fingerprint is None
    assert read_key(key_line("x") + "\n").fingerprint == fingerprint(key_line("x"))


def test_keys_are_shortened_and_nothing_else() -> None:
    """No whole key is shown; options, comments and short words are."""
    line = 'command="x" ' + key_line("me@home")
    data = line.split()[2]
    shown = shortened(line)
    assert shown == f'command="x" ssh-ed25519 {data[:12]}…{data[-8:]} me@home'
    assert shortened("\x1b[31mred") == "\\x1b[31mred"


def test_several_keys_are_told_apart() -> None:
    """Two pasted lines are two keys; a wrapped line is not two."""
    lines = [key_line("a"), key_line("b")]
    assert several("\n".join(lines) + "\n\n") == lines
    assert several(key_line("a").replace(" ", "\n")) == []
    assert several(key_line("a") + "\nnot a key\n" + key_line("b")) == []


def test_only_nothing_and_private_keys_are_refused_for_good() -> None:
    """The real console stores garbage: so does this one, once the person insists."""
    assert judge("", "", []).final
    private = judge("-----BEGIN OPENSSH PRIVATE KEY-----", "private", [])
    assert (private.final, private.stops, private.keeps_text) == (True, True, False)
    doubted = judge("garbage", "", [])
    assert (doubted.stops, doubted.final, doubted.keeps_text) == (True, False, True)
    assert not judge("garbage", doubted.code, []).stops
    assert not judge(key_line("x"), "", []).stops


def test_another_doubt_asks_again() -> None:
    """Waving one doubt away says nothing about the next."""
    assert judge("ssh-ed25519 AAAA!", "no_type", []).stops


def test_the_same_key_twice_is_doubted() -> None:
    """By its blob, whatever its comment says."""
    known = StoredKey(1, 4711, key_line("first"), "2024-05-01T10:00:00Z")
    again = judge(key_line("first").replace(" first", " second"), "", [known])
    assert (again.code, again.stops) == ("double", True)
    assert "first" in again.text


def test_a_team_account_holds_no_keys() -> None:
    """Whatever is pasted."""
    assert judge(key_line("x"), "team", [], is_team=True).stops


@pytest.mark.parametrize(
    ("user_agent", "words"),
    [
        (
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Chrome/120.0.0.0 Safari/537.36",
            "Chrome 120 on Linux",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Chrome/120.0.0.0 Safari/537.36 Edg/120.0.0.0",
            "Edge 120 on Windows",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_2 like Mac OS X) AppleWebKit/605.1.15 "
            "(KHTML, like Gecko) Version/17.2 Mobile/15E148 Safari/604.1",
            "Safari 17 on iPhone",
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:121.0) Gecko/20100101 Firefox/121.0",
            "Firefox 121 on macOS",
        ),
        ("curl/8.5.0", "curl 8"),
        ("python-httpx/0.28.1", "a Python program"),
        ("<script>", "an unknown device"),
        ("", "an unknown device"),
    ],
)
def test_a_device_in_plain_words(user_agent: str, words: str) -> None:
    """People recognize their browser; an unknown text is not repeated."""
    assert in_words(user_agent) == words


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        ("2026-05-01T10:00:00Z", "just now"),
        ("2026-05-01T09:59:59Z", "1 second ago"),
        ("2026-05-01T09:57:30Z", "2 minutes ago"),
        ("2026-04-30T09:00:00Z", "1 day ago"),
        ("2026-05-08T09:59:58Z", "in 7 days"),
        ("2026-05-01T10:00:30Z", "in 30 seconds"),
    ],
)
def test_how_far_away_a_moment_is(moment: str, words: str) -> None:
    """Whole units that have passed; what lies ahead is rounded up."""
    now = datetime(2026, 5, 1, 10, 0, 0, tzinfo=timezone.utc)
    assert distance(moment, now) == words
