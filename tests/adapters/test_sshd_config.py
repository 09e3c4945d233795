"""Which files sshd reads for a user: asked from a real sshd with configurations of our own."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.adapters.sshd_config import KeyFiles, Sshd
from sandbox.console import Console
from tests.adapters.support import FOREIGN_KEY, KEY, MANAGED, User, needs_root, target
from tests.support.machine import TAG, Machine, key_line

REAL = "/usr/sbin/sshd"
DEFAULT = (".ssh/authorized_keys", ".ssh/authorized_keys2")

Ask = Callable[[str], KeyFiles]

_WHY = "needs root and sshd: only root reads sshd's effective configuration"
needs_sshd = pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists(REAL), reason=_WHY)


@pytest.fixture
def me() -> pwd.struct_passwd:
    """Somebody whose id is not that of the name, so that every token shows."""
    found = pwd.getpwuid(os.geteuid())
    return pwd.struct_passwd((found.pw_name, "x", 4321, 4321, "", "/home/of me", "/bin/sh"))


@pytest.fixture
def ask(tmp_path: Path, me: pwd.struct_passwd) -> Ask:
    """Asks the real sshd, found first in the search path, about a configuration."""

    def asked(configuration: str) -> KeyFiles:
        (tmp_path / "sshd_config").write_text(configuration)
        script = tmp_path / "sshd"
        script.write_text(f'#!/bin/sh\nexec {REAL} "$@" -f {tmp_path}/sshd_config\n')
        script.chmod(0o755)
        return Sshd(str(tmp_path)).key_files(me)

    return asked


@needs_sshd
@pytest.mark.parametrize(
    ("value", "paths"),
    [
        (".ssh/authorized_keys", ["/home/of me/.ssh/authorized_keys"]),
        ("%h/.ssh/keys", ["/home/of me/.ssh/keys"]),
        ("/etc/ssh/keys/%u", ["/etc/ssh/keys/root"]),
        ("/etc/ssh/keys/%U", ["/etc/ssh/keys/4321"]),
        ("/etc/100%%/%u", ["/etc/100%/root"]),
        ("/etc/%%u", ["/etc/%u"]),
        ("a  /b c", ["/home/of me/a", "/b", "/home/of me/c"]),
        ("a %h/a", ["/home/of me/a"]),
        ("none", []),
        ("NONE", []),
    ],
)
def test_tokens_and_relative_paths(ask: Ask, value: str, paths: list[str]) -> None:
    """sshd_config(5), AuthorizedKeysFile and TOKENS; in sshd's order, each file once."""
    found = ask(f"AuthorizedKeysFile {value}\n")
    assert replace(found, common=frozenset()) == KeyFiles(tuple(paths))


@needs_sshd
def test_sshds_own_default(ask: Ask) -> None:
    """An empty configuration: two files in the home."""
    folder = "/home/of me/.ssh"
    assert ask("").paths == (f"{folder}/authorized_keys", f"{folder}/authorized_keys2")


@needs_sshd
@pytest.mark.parametrize(
    "match", ["User root", "LocalPort 22", "Address 192.0.2.0/24", "Group root", "All"]
)
def test_match_blocks_are_heeded(ask: Ask, match: str) -> None:
    """Incident 12: what sshd would read for this very user, and a LocalPort must not fail."""
    found = ask(f"AuthorizedKeysFile other\nMatch {match}\n  AuthorizedKeysFile /mine/%u\n")
    assert found.paths[0] == "/mine/root"
    found = ask("AuthorizedKeysFile /mine/%u\nMatch User nobody\n  AuthorizedKeysFile other\n")
    assert found.paths == ("/mine/root",)


def _in(me: pwd.struct_passwd) -> tuple[str, ...]:
    return tuple(f"{me.pw_dir}/{path}" for path in DEFAULT)


@needs_sshd
def test_a_configuration_that_sshd_refuses(ask: Ask, me: pwd.struct_passwd) -> None:
    """Targets: sshd's default is assumed, and why is said in sshd's words."""
    found = ask("NoSuchOption yes\n")
    assert found.paths == _in(me)
    assert found.problem is not None
    assert "sshd -T failed" in found.problem
    assert "sshd_config" in found.problem


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 3", "sshd -T failed: 3"),
        ("echo 'sshd: no hostkeys available -- exiting.' >&2; exit 1", "no hostkeys available"),
        ("echo port 22", "names no authorizedkeysfile"),
        ("exec sleep 60", "timed out"),
        ("kill -9 $$", "sshd -T failed"),
        ("head -c 100000 /dev/zero", "names no authorizedkeysfile"),
    ],
)
def test_an_sshd_that_does_not_answer(
    tmp_path: Path, me: pwd.struct_passwd, script: str, words: str
) -> None:
    """Whatever goes wrong, sshd's default is assumed with the reason; nothing hangs."""
    program = tmp_path / "sshd"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    found = Sshd(str(tmp_path)).key_files(me)
    assert found.paths == _in(me)
    assert words in str(found.problem)


def test_no_sshd_at_all(tmp_path: Path, me: pwd.struct_passwd) -> None:
    """Configuration: a machine without sshd is told so, and gets the usual path."""
    assert Sshd(str(tmp_path)).key_files(me) == KeyFiles(_in(me), "no sshd is installed")


@needs_sshd
@pytest.mark.parametrize(
    ("configuration", "common"),
    [
        ("AuthorizedKeysFile /etc/ssh/all %h/own /etc/ssh/keys/%u\n", ["/etc/ssh/all"]),
        ("AuthorizedKeysFile /all\nMatch LocalPort 22\n AuthorizedKeysFile /near\n", ["/near"]),
        ("AuthorizedKeysFile /all\nMatch User root\n AuthorizedKeysFile /etc/ssh/roots\n", []),
        ("AuthorizedKeysFile .ssh/authorized_keys\n", []),
    ],
)
def test_which_files_are_the_same_for_all_users(
    ask: Ask, configuration: str, common: list[str]
) -> None:
    """R4: without a token of the user in the path, and where no Match block tells users apart."""
    assert ask(configuration).common == frozenset(common)


# ---- paths with blanks ----


@needs_sshd
@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ('"/x/my keys/%u"', ["/x/my keys/root"]),
        ("'/x/my keys/%u' b", ["/x/my keys/root", "/home/of me/b"]),
        ('=  "/x/my keys/%u"', ["/x/my keys/root"]),
        ("/x/my keys/%u  # both", ["/x/my", "/home/of me/keys/root"]),
    ],
)
def test_a_path_may_hold_blanks(ask: Ask, value: str, paths: list[str]) -> None:
    """Incident 12: `sshd -T` prints no quotes; how it is written decides."""
    found = ask(f"AuthorizedKeysFile {value}\n")
    assert replace(found, common=frozenset()) == KeyFiles(tuple(paths))


@needs_sshd
def test_a_path_with_blanks_in_an_included_file(ask: Ask, tmp_path: Path) -> None:
    """Incident 12: sshd says itself which files it reads, also inside a Match block."""
    (tmp_path / "one.conf").write_text('authorizedkeysfile "/x/my keys/%u"\n')
    found = ask(f"Match User root\n  Include {tmp_path}/*.conf\n")
    assert found == KeyFiles(("/x/my keys/root",))


@needs_sshd
def test_two_ways_to_write_what_looks_alike(ask: Ask) -> None:
    """Incident 12: what cannot be decided is told."""
    found = ask('AuthorizedKeysFile a b\nMatch User nobody\n AuthorizedKeysFile "a b"\n')
    assert found.paths == ("/home/of me/a", "/home/of me/b")
    assert "'a b'" in str(found.problem)


# ---- connections ----

_ALL_READ_KEYS = KeyFiles(("/keys",), common=frozenset({"/keys"}))


@needs_sshd
def test_a_client_on_another_machine_counts(ask: Ask) -> None:
    """Incident 12: Match Address 127.0.0.1 is not what a remote client meets."""
    found = ask("AuthorizedKeysFile /far\nMatch Address 127.0.0.1\n AuthorizedKeysFile /near\n")
    assert found.paths == ("/far", "/near")
    assert "from 192.0.2.1" in str(found.disagreement)
    assert "from 127.0.0.1" in str(found.disagreement)


@needs_sshd
@pytest.mark.parametrize(
    ("match", "address"),
    [
        ("Address 10.0.0.0/8", "10.0.0.1"),
        ("address=10.1.2.3", "10.1.2.3"),
        ('User root,nobody Address "10.0.0.0/8,172.16.0.0/12"', "10.0.0.1"),
        ("Address !10.0.0.0/9,10.0.0.0/8", "10.128.0.1"),
        ("Address !10.0.0.*,10.0.0.0/8", "10.128.0.1"),
        ("Address 192.168.*", "192.168.1.1"),
        ("Address 10.?.*.7", "10.1.1.7"),
        ("Address 10.9.8.6/31", "10.9.8.7"),
        ("Address 2001:db8:1::/48", "2001:db8:1::1"),
        ("Address 2001:db8:2:*", "2001:db8:2::1"),
    ],
)
def test_a_client_that_a_match_block_names_counts(ask: Ask, match: str, address: str) -> None:
    """Incident 12, R5: whoever comes from there is served another file, which is served too, and
    told.
    """
    found = ask(f"AuthorizedKeysFile /all\nMatch {match}\n AuthorizedKeysFile /some\n")
    assert found.paths == ("/all", "/some")
    assert f"from {address} to" in str(found.disagreement)
    same = ask(f"AuthorizedKeysFile /all\nMatch {match}\n X11Forwarding no\n")
    assert (same.paths, same.disagreement) == (("/all",), None)


@needs_sshd
def test_every_match_block_is_asked_about_up_to_a_bound(ask: Ask) -> None:
    """Incident 12, G12: the first ones are, and that there are others is told."""
    blocks = [f"Match Address 10.{at}.0.0/16\n AuthorizedKeysFile /{at}\n" for at in range(10)]
    found = ask("AuthorizedKeysFile /all\n" + "".join(blocks))
    assert found.paths == ("/all", *(f"/{at}" for at in range(8)))
    assert "was not asked (10.8.0.0/16, 10.9.0.0/16)" in str(found.disagreement)


@needs_sshd
@pytest.mark.parametrize("addresses", ["10.0.0.0/8,!10.0.0.0/8", "*:*:*"])
def test_a_match_block_for_which_no_address_is_found(ask: Ask, addresses: str) -> None:
    """Incident 12: that such a block exists is told."""
    found = ask(f"AuthorizedKeysFile /all\nMatch Address {addresses}\n AuthorizedKeysFile /x\n")
    assert found.paths == ("/all",)
    assert f"was not asked ({addresses})" in str(found.disagreement)


@needs_sshd
def test_every_port_that_is_configured_is_asked_about(ask: Ask) -> None:
    """Incident 12: the port is not always 22."""
    port = "AuthorizedKeysFile /other\nPort 2222\nMatch LocalPort 2222\n AuthorizedKeysFile /keys\n"
    assert ask(port) == _ALL_READ_KEYS
    both = ask("Port 22\n" + port)
    assert both.paths == ("/other", "/keys")
    assert "port 2222: /keys" in str(both.disagreement)
    addresses = (
        "ListenAddress 10.9.8.7:23\nMatch LocalAddress 10.9.8.7\n AuthorizedKeysFile /keys\n"
    )
    assert ask(addresses) == _ALL_READ_KEYS


@needs_sshd
def test_where_the_running_sshd_listens(ask: Ask, tmp_path: Path) -> None:
    """Incident 12: what listens counts, also when the configuration names another port by now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    listen = f"ListenAddress=127.0.0.1:{port}"
    command = [REAL, "-D", "-e", "-o", listen, "-o", f"PidFile={tmp_path}/pid"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as running:
        try:
            assert running.stderr is not None
            assert b"listening on 127.0.0.1" in running.stderr.readline()
            found = ask(
                f"AuthorizedKeysFile /other\nMatch LocalPort {port}\n AuthorizedKeysFile /keys\n"
            )
        finally:
            running.terminate()
    assert found == _ALL_READ_KEYS


# ---- questions ----


@pytest.fixture
def counted(tmp_path: Path) -> Callable[[str], tuple[Sshd, Callable[[], int]]]:
    """A real sshd with this configuration, and how often it was started."""

    def made(configuration: str) -> tuple[Sshd, Callable[[], int]]:
        (tmp_path / "sshd_config").write_text(configuration)
        script = tmp_path / "sshd"
        script.write_text(
            f'#!/bin/sh\necho >>{tmp_path}/log\nexec {REAL} "$@" -f {tmp_path}/sshd_config\n'
        )
        script.chmod(0o755)
        return Sshd(str(tmp_path)), lambda: (tmp_path / "log").read_bytes().count(b"\n")

    return made


@needs_sshd
@pytest.mark.parametrize(("match", "questions"), [("", 1), ("Match User nobody\n", 2)])
def test_one_question_where_one_is_enough(
    counted: Callable[[str], tuple[Sshd, Callable[[], int]]],
    me: pwd.struct_passwd,
    match: str,
    questions: int,
) -> None:
    """Each cycle asks sshd, so it must be cheap: it is asked once for all users, unless a Match
    block names users, and once more for each kind of client.
    """
    sshd, count = counted(f"AuthorizedKeysFile /keys/%u\n{match}")
    nobody = pwd.getpwnam("nobody")
    for _ in range(2):
        assert sshd.key_files(me).paths == ("/keys/root",)
        assert sshd.key_files(nobody).paths == ("/keys/nobody",)
        assert sshd.accepts("ssh-ed25519") is True
    assert count() == questions


@needs_sshd
def test_kinds_of_clients_are_asked_about_once_for_all_users(
    counted: Callable[[str], tuple[Sshd, Callable[[], int]]], me: pwd.struct_passwd
) -> None:
    """G12: with `targets: auto` every account is looked at, in each cycle."""
    sshd, count = counted("AuthorizedKeysFile /%u\nMatch Address 10.0.0.0/8\n")
    assert sshd.key_files(me).paths == ("/root",)
    questions = count()
    assert questions > 2
    assert sshd.key_files(pwd.getpwnam("nobody")).paths == ("/nobody",)
    assert count() == questions


@needs_sshd
@pytest.mark.parametrize(
    ("algorithms", "accepted"),
    [
        ("", {"ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "sk-ssh-ed25519@openssh.com"}),
        ("PubkeyAcceptedAlgorithms ssh-ed25519", {"ssh-ed25519"}),
        ("PubkeyAcceptedAlgorithms rsa-sha2-512,ssh-rsa-cert-v01@openssh.com", {"ssh-rsa"}),
        ("PubkeyAcceptedAlgorithms ssh-ed25519-cert-v01@openssh.com", set()),
        (
            "PubkeyAcceptedAlgorithms webauthn-sk-ecdsa-sha2-nistp256@openssh.com",
            {"sk-ecdsa-sha2-nistp256@openssh.com"},
        ),
    ],
)
def test_which_key_types_sshd_accepts(
    counted: Callable[[str], tuple[Sshd, Callable[[], int]]], algorithms: str, accepted: set[str]
) -> None:
    """Incident 30: PubkeyAcceptedAlgorithms, from signature algorithms to key types."""
    sshd, _ = counted(f"{algorithms}\n")
    types = accepted | {"ssh-dss", "ssh-foo"}
    assert {key_type for key_type in types if sshd.accepts(key_type)} == accepted


def test_capitals_and_older_names(tmp_path: Path, me: pwd.struct_passwd) -> None:
    """Incident 32: OpenSSH 10.6 prints the keywords with capitals; before 8.5 names differ."""
    program = tmp_path / "sshd"
    program.write_text(
        "#!/bin/sh\necho AuthorizedKeysFile /etc/ssh/keys/%u\n"
        "echo PubkeyAcceptedKeyTypes ssh-new,rsa-sha2-256\n"
    )
    program.chmod(0o755)
    sshd = Sshd(str(tmp_path))
    assert sshd.key_files(me) == KeyFiles(("/etc/ssh/keys/root",))
    answers = [sshd.accepts(name) for name in ("ssh-new", "ssh-rsa", "ssh-ed25519")]
    assert answers == [True, True, False]


def test_an_sshd_that_cannot_be_asked_accepts_nobody_knows_what(tmp_path: Path) -> None:
    """G2: None, so that known types enter all the same."""
    assert Sshd(str(tmp_path)).accepts("ssh-ed25519") is None


_WITHOUT_RUN = """\
import os, pwd
from agent.adapters.sshd_config import Sshd
assert not os.path.exists("/run/sshd")
os.umask(0o077)
found = Sshd().key_files(pwd.getpwuid(0))
print(found.problem, oct(os.stat("/run/sshd").st_mode), os.stat("/run/sshd").st_uid)
"""


@needs_sshd
def test_a_missing_run_sshd_is_made() -> None:
    """Incident 13: with ssh.socket there is no /run/sshd before the first login."""
    done = subprocess.run(
        [
            *("unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "sh"),
            *(sys.executable, "-c", _WITHOUT_RUN),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == "None 0o40755 0\n", done.stderr


# ---- several files ----


@pytest.fixture
def two_files(machine: Machine, user: User) -> Machine:
    """A target without a path, on a machine whose sshd reads two files for the user."""
    found = Sshd().key_files(pwd.getpwnam(user.name)).paths
    if found != (f"{user.keys}", f"{user.keys}2"):
        pytest.skip(reason=f"this machine's sshd does not read its default files but {found}")
    user.make_ssh()
    machine.configure(targets=target(user.name))
    return machine


def _write_second(user: User, data: bytes) -> Path:
    path = user.ssh / "authorized_keys2"
    path.write_bytes(data)
    path.chmod(0o600)
    user.give(path)
    return path


@needs_root
def test_a_revoked_key_goes_from_the_second_file_too(
    two_files: Machine, console: Console, user: User
) -> None:
    """R5 holds for every file that sshd reads; keys are added to the first one only (R1)."""
    key_id = console.add_key(key_line("gone"))
    gone = key_line("gone").encode()
    second = _write_second(user, FOREIGN_KEY + b"\n" + gone + b"\n")
    assert two_files.here("sync").code == 0
    assert user.keys.read_bytes() == MANAGED + gone + f" {TAG}\n".encode()
    assert second.read_bytes() == FOREIGN_KEY + b"\n" + gone + f" {TAG}\n".encode()
    console.delete_key(key_id)
    assert two_files.here("sync").code == 0
    assert user.keys.read_bytes() == MANAGED
    assert second.read_bytes() == FOREIGN_KEY + b"\n"
    with second.open("ab") as file:
        file.write(gone + b"\n")
    assert two_files.here("sync").code == 0
    assert second.read_bytes() == FOREIGN_KEY + b"\n"


@needs_root
def test_a_second_file_is_not_made(two_files: Machine, user: User) -> None:
    """R1: where there is none, there is still none."""
    assert two_files.here("sync").code == 0
    assert os.listdir(user.ssh) == ["authorized_keys"]


@needs_root
def test_a_restricted_line_in_the_second_file_is_not_undercut(
    two_files: Machine, user: User
) -> None:
    """R4, incident 11: sshd would take an unrestricted line in the first file before it comes to
    this one, so keysync neither writes nor keeps one; a plain one is its owner's.
    """
    line = b'restrict,command="true" ' + KEY + b"\n"
    user.write_keys(FOREIGN_KEY + b"\n" + MANAGED)
    second = _write_second(user, line)
    assert two_files.here("sync", "--confirm-removals").code == 0
    assert user.keys.read_bytes() == FOREIGN_KEY + b"\n"
    assert second.read_bytes() == line


@needs_root
def test_a_second_file_that_cannot_be_read_is_not_passed_over(
    two_files: Machine, user: User
) -> None:
    """R5, R10, R11: a key could live on in it, so the sync is no success; the first is served."""
    os.mkfifo(user.ssh / "authorized_keys2")
    done = two_files.here("sync", "--json")
    assert done.code == 74
    results = {found["path"]: found["result"] for found in done.json["targets"]}
    assert results == {f"{user.keys}": "changed", f"{user.keys}2": "failed"}
    assert user.keys.read_bytes() == MANAGED
