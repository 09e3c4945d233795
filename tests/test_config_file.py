"""The configuration: every option, where each value came from, and errors one can act on."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import pytest

from agent.config import Config, Target
from agent.config_file import load
from agent.config_options import effective_options
from agent.errors import ConfigInvalid
from tests.support.machine import REPOSITORY, fingerprint, key_line

PIN = key_line("emergency")
EXAMPLE = REPOSITORY / "config.example.yaml"


def written(folder: Path, text: str | bytes) -> str:
    path = folder / "config.yaml"
    path.touch(mode=0o600)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def values(config: Config) -> dict[str, object]:
    """All options without where they came from."""
    return {
        item.name: getattr(config, item.name)
        for item in dataclasses.fields(config)
        if item.name != "sources"
    }


def problems(folder: Path, text: str | bytes, **environment: str) -> list[str]:
    """Every line of the error, without the file's path."""
    path = written(folder, text)
    with pytest.raises(ConfigInvalid) as caught:
        load(path, environment)
    error = caught.value
    assert (error.kind, error.exit_code) == ("config_invalid", 78)
    assert "keysync config check" in error.hint
    return [line.replace(f"{path}:", "") for line in error.message.splitlines()]


# Values


def test_every_option(tmp_path: Path) -> None:
    """Configuration: each option can be set, and each value knows its line."""
    text = f"""\
api:
  url: https://console.example/base/
  key_file: /etc/keysync/api_key
  timeout: 2.5s
poll:
  interval: 1m
  jitter: 500ms
  max_backoff: 2h
targets:
  - user: root
  - user: alice
    path: /srv/alice/keys
policy:
  unmanaged: remove
  removal_confirmations: 5
  removal_hold: 10m
  additions: hold
  min_rsa_bits: 3072
  max_staleness: 7d
pins:
  - {PIN}
state_dir: /srv/keysync
"""
    config = load(written(tmp_path, text), {})
    [pin] = config.pins
    assert (pin.key.fingerprint, pin.comment, pin.key_id) == (fingerprint(PIN), "emergency", None)
    assert values(config) == {
        "api_url": "https://console.example/base",
        "api_key_file": "/etc/keysync/api_key",
        "api_timeout": 2.5,
        "poll_interval": 60.0,
        "poll_jitter": 0.5,
        "poll_max_backoff": 7200.0,
        "targets": (Target("root"), Target("alice", "/srv/alice/keys")),
        "policy_unmanaged": "remove",
        "policy_removal_confirmations": 5,
        "policy_removal_hold": 600.0,
        "policy_additions": "hold",
        "policy_min_rsa_bits": 3072,
        "policy_max_staleness": 604800.0,
        "pins": (pin,),
        "state_dir": "/srv/keysync",
    }
    lines = {name: int(source.rpartition(":")[2]) for name, source in config.sources.items()}
    assert lines == {
        "api.url": 2,
        "api.key_file": 3,
        "api.timeout": 4,
        "poll.interval": 6,
        "poll.jitter": 7,
        "poll.max_backoff": 8,
        "targets": 9,
        "policy.unmanaged": 14,
        "policy.removal_confirmations": 15,
        "policy.removal_hold": 16,
        "policy.additions": 17,
        "policy.min_rsa_bits": 18,
        "policy.max_staleness": 19,
        "pins": 20,
        "state_dir": 22,
    }


def test_example_holds_the_defaults(tmp_path: Path) -> None:
    """Configuration: config.example.yaml shows every option with its default."""
    config = load(written(tmp_path, EXAMPLE.read_text()), {})
    assert values(config) == values(Config())
    assert set(config.sources) == {
        *(name for name, _, _ in effective_options(Config())[:-1]),
        "targets",
        "pins",
    }


def test_example_explains_every_option() -> None:
    """Configuration: each option of the example stands under a comment of its own."""
    lines = EXAMPLE.read_text().splitlines()
    for at, line in enumerate(lines):
        if re.fullmatch(r" *[a-z_]+:( .+)?|  - .*", line) and line[:-1] not in (
            "api",
            "poll",
            "policy",
        ):
            assert lines[at - 1].lstrip().startswith("#"), line


def test_example_in_the_specification_holds_the_defaults(tmp_path: Path) -> None:
    """Configuration: the defaults are those of the contract."""
    text = """\
api:
  url: https://console.vast.ai      # VAST_URL overrides
  key_file: null
  timeout: 10s                      # whole request
poll:
  interval: 30s
  jitter: 5s
  max_backoff: 10m
targets: auto
policy:
  unmanaged: keep                   # keep | remove
  removal_confirmations: 3
  removal_hold: 5m
  additions: apply                  # apply | hold
  min_rsa_bits: 2048
  max_staleness: 15m
pins: []                            # public key lines
state_dir: /var/lib/keysync
"""
    assert values(load(written(tmp_path, text), {})) == values(Config())


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "---\n", "api:\npoll:\npolicy:\npins:\n", "{}"]
)
def test_empty_means_defaults(tmp_path: Path, text: str) -> None:
    """Configuration: what is left out has its default, sections included."""
    assert values(load(written(tmp_path, text), {})) == values(Config())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("100ms", 0.1),
        ("30s", 30),
        ("1.5m", 90),
        ("2h", 7200),
        ("1d", 86400),
        ("45", 45),
        ("2.5", 2.5),
    ],
)
def test_times(tmp_path: Path, text: str, seconds: float) -> None:
    """Configuration: a time is a number and a unit; a number alone is in seconds."""
    option = "poll: {interval: 1, max_backoff: %s}" if seconds >= 1 else "api: {timeout: %s}"
    config = load(written(tmp_path, option % text), {})
    assert (config.poll_max_backoff if seconds >= 1 else config.api_timeout) == seconds


def test_a_pins_last_newline_is_no_part_of_it(tmp_path: Path) -> None:
    """G2 and incident 1: white space around a key's text is trimmed."""
    [pin] = load(written(tmp_path, f"pins:\n  - |\n    {PIN}\n"), {}).pins
    assert pin.key.fingerprint == fingerprint(PIN)


def test_targets_are_found_unless_they_are_listed(tmp_path: Path) -> None:
    """Configuration: auto is the default, and what is said outright is shown with its line."""
    path = written(tmp_path, "state_dir: /srv\ntargets: auto\n")
    config = load(path, {})
    assert config.targets is None
    shown = {name: row for name, *row in effective_options(config)}
    assert shown["targets"] == ["auto", f"{path}:2"]
    assert {name: row for name, *row in effective_options(Config())}["targets"] == [
        "auto",
        "default",
    ]
    listed = effective_options(load(written(tmp_path, "targets: [{user: auto}]"), {}))
    assert [(name, value) for name, value, _ in listed if name.startswith("targets")] == [
        ("targets[0]", "auto")
    ]


def test_no_limit_on_staleness_and_no_hold(tmp_path: Path) -> None:
    """Configuration: both can be switched off."""
    config = load(written(tmp_path, "policy: {max_staleness: null, removal_hold: 0s}"), {})
    assert (config.policy_max_staleness, config.policy_removal_hold) == (None, 0.0)


def test_a_long_interval_raises_the_default_backoff(tmp_path: Path) -> None:
    """Incident 20: a failure is never retried sooner than a success; only the interval is given."""
    config = load(written(tmp_path, "poll: {interval: 1h}"), {})
    assert config.poll_max_backoff == 3600.0
    shown = {name: row for name, *row in effective_options(config)}
    assert shown["poll.max_backoff"] == ["3600s", "default, raised to poll.interval"]


# What is wrong

_TIME = "must be a time such as 500ms, 30s, 10m or 2h"
_ADDRESS = "must be an address such as https://console.example.com"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("api: {timeout: ten}", f"1: api.timeout {_TIME}"),
        ("api: {timeout: 10 s}", f"1: api.timeout {_TIME}"),
        ("api: {timeout: 10S}", f"1: api.timeout {_TIME}"),
        ("api: {timeout: 1h30m}", f"1: api.timeout {_TIME}"),
        ("api: {timeout: -3s}", f"1: api.timeout {_TIME}"),
        ("api: {timeout: [10s]}", f"1: api.timeout {_TIME}"),
        ("api: {timeout: true}", f"1: api.timeout {_TIME}"),
        ("api: {timeout: null}", f"1: api.timeout {_TIME}"),
        ("api: {timeout: 0}", "1: api.timeout must be between 0.1 s and 300 s"),
        ("api: {timeout: 6m}", "1: api.timeout must be between 0.1 s and 300 s"),
        ("api: {timeout: .inf}", "1: api.timeout must be between 0.1 s and 300 s"),
        ("api: {timeout: .nan}", "1: api.timeout must be between 0.1 s and 300 s"),
        ("api:\n  key_file: key", "2: api.key_file must be an absolute path"),
        ("api: {key_file: 7}", "1: api.key_file must be an absolute path"),
        ('api: {key_file: "~/a\\0b"}', "1: api.key_file must be an absolute path"),
        ("api: {key_file: ~root/key}", "1: api.key_file must be an absolute path"),
        ("poll: {interval: 0}", "1: poll.interval must be between 1 s and 86400 s"),
        ("poll: {jitter: 2h}", "1: poll.jitter must be between 0 s and 3600 s"),
        (
            "poll:\n  interval: 30s\n  max_backoff: 1s",
            "3: poll.max_backoff (1s) must not be shorter than poll.interval (30s)",
        ),
        (
            "poll: {max_backoff: 20s}",
            "1: poll.max_backoff (20s) must not be shorter than poll.interval (30s)",
        ),
        ("poll: {max_backoff: 2d}", "1: poll.max_backoff must be between 1 s and 86400 s"),
        ("policy: {unmanaged: delete}", "1: policy.unmanaged must be one of: keep, remove"),
        ("policy: {unmanaged: null}", "1: policy.unmanaged must be one of: keep, remove"),
        ("policy: {unmanaged: [keep]}", "1: policy.unmanaged must be one of: keep, remove"),
        (
            "policy: {removal_confirmations: 0}",
            "1: policy.removal_confirmations must be a whole number from 1 to 1000",
        ),
        (
            "policy: {removal_confirmations: 1.0}",
            "1: policy.removal_confirmations must be a whole number from 1 to 1000",
        ),
        (
            "policy: {removal_confirmations: true}",
            "1: policy.removal_confirmations must be a whole number from 1 to 1000",
        ),
        (
            "policy: {min_rsa_bits: 512}",
            "1: policy.min_rsa_bits must be a whole number from 1024 to 16384",
        ),
        (
            "policy: {min_rsa_bits: '2048'}",
            "1: policy.min_rsa_bits must be a whole number from 1024 to 16384",
        ),
        ("policy: {removal_hold: soon}", f"1: policy.removal_hold {_TIME}"),
        ("policy: {removal_hold: null}", f"1: policy.removal_hold {_TIME}"),
        ("policy: {removal_hold: 8d}", "1: policy.removal_hold must be between 0 s and 604800 s"),
        ("policy: {additions: ask}", "1: policy.additions must be one of: apply, hold"),
        ("policy: {additions: null}", "1: policy.additions must be one of: apply, hold"),
        ("policy: {max_staleness: soon}", f"1: policy.max_staleness {_TIME}"),
        ("state_dir: state", "1: state_dir must be an absolute path"),
        ("state_dir: null", "1: state_dir must be an absolute path"),
        ("state_dir: /srv/", '1: state_dir must not end in "/" or contain ".."'),
        ("state_dir: /srv/../etc", '1: state_dir must not end in "/" or contain ".."'),
        ("targets: root", "1: targets must be auto, or a list with at least one - user: NAME"),
        ("targets: []", "1: targets must be auto, or a list with at least one - user: NAME"),
        ("targets:", "1: targets must be auto, or a list with at least one - user: NAME"),
        ("targets: [auto]", "1: targets must contain NAME: VALUE lines"),
        ("targets: AUTO", "1: targets must be auto, or a list with at least one - user: NAME"),
        ("targets: {user: a}", "1: targets must be auto, or a list with at least one - user: NAME"),
        ("targets:\n  - root", "2: targets must contain NAME: VALUE lines"),
        ("targets:\n  - path: /a", "2: each target needs a user: NAME"),
        ("targets:\n  - user: 0", "2: each target needs a user: NAME"),
        ("targets:\n  - user: ''", "2: each target needs a user: NAME"),
        ("targets:\n  - {user: a, path: b}", "2: targets.path must be an absolute path"),
        ("targets: [{user: a}, {user: a}]", "1: targets names the file of a twice"),
        (
            "targets: [{user: a, path: /k}, {user: b, path: /k}]",
            "1: targets names /k twice",
        ),
        ("pins: ssh-ed25519 AAAA", "1: pins must be a list of public key lines"),
        ("pins: [1]", "1: pins must be a list of public key lines"),
        ("pins: {a: b}", "1: pins must be a list of public key lines"),
        ("api: [url]", "1: api must contain NAME: VALUE lines"),
        ("- api", "1: the file must contain NAME: VALUE lines"),
        ("just a text", "1: the file must contain NAME: VALUE lines"),
        ("? [a, b]\n: c", "1: the name of an option must be one word"),
    ],
)
def test_wrong_value(tmp_path: Path, text: str, problem: str) -> None:
    """Configuration: a wrong value is named with its line, its option and what would be right."""
    found = problems(tmp_path, text)
    assert problem in found
    assert [line for line in found if line != problem and "each target needs" not in line] == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "poll:\n  jitter: 1s\n  intervall: 30s",
            '3: unknown option "poll.intervall"; did you mean "interval"?',
        ),
        ("apii: {}", '1: unknown option "apii"; did you mean "api"?'),
        ("target: []", '1: unknown option "target"; did you mean "targets"?'),
        ("state-dir: /srv", '1: unknown option "state-dir"; did you mean "state_dir"?'),
        ("interval: 30s", '1: unknown option "interval"; did you mean poll.interval?'),
        (
            "api: {unmanaged: keep}",
            '1: unknown option "api.unmanaged"; did you mean policy.unmanaged?',
        ),
        (
            "targets:\n  - user: a\n    file: /k",
            '3: unknown option "targets.file"; known here: user, path',
        ),
        (
            "api: {zzz: 1}",
            '1: unknown option "api.zzz"; known here: url, key_file, timeout',
        ),
        (
            "xyzzy: 1",
            '1: unknown option "xyzzy"; known here: api, poll, policy, targets, pins, state_dir',
        ),
    ],
)
def test_unknown_option(tmp_path: Path, text: str, problem: str) -> None:
    """Configuration: an unknown key is an error that names the nearest right one, and its line."""
    assert problems(tmp_path, text) == [problem]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("api: {}\napi: {}", '2: "api" is given twice'),
        ("poll:\n  jitter: 1s\n  jitter: 1s", '3: "poll.jitter" is given twice'),
        ("targets:\n  - user: a\n    user: b", '3: "targets.user" is given twice'),
    ],
)
def test_doubled_option(tmp_path: Path, text: str, problem: str) -> None:
    """An option that stands twice is an error, since only one of the two could count."""
    assert problems(tmp_path, text) == [problem]


def test_all_at_once(tmp_path: Path) -> None:
    """Configuration: one run names every problem of the file, and of the environment."""
    text = (
        "api:\n  timeout: 1y\n  urll: x\npoll: 7\npins:\n  - not a key\ntargets: []\nstate_dir: x\n"
    )
    found = problems(tmp_path, text, VAST_URL="ftp://x")
    assert [line.split()[:2] for line in found] == [
        ["2:", "api.timeout"],
        ["3:", "unknown"],
        ["4:", "poll"],
        ["6:", "pins:"],
        ["7:", "targets"],
        ["8:", "state_dir"],
        ["the", "variable"],
    ]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (b"api: {", 1, "expected"),
        (b"api:\n\turl: x", 2, "cannot start any token"),
        (b"api: a: b", 1, "mapping values are not allowed"),
        (b"a\n---\nb", 2, "another document"),
        (b"pins: *nowhere", 1, "undefined alias"),
        (b"pins: &a [*a]", 1, "recursive"),
        (b"api: !!python/object:os.system {}", 1, "could not determine a constructor"),
        (b"api:\n  url: \xff", 2, "invalid start byte"),
        (b"poll: {}\n\nx: \x00", 3, "not allowed"),
        (b"[" * 600, 1, "not valid YAML"),
    ],
)
def test_no_yaml(tmp_path: Path, text: bytes, line: int, words: str) -> None:
    """Configuration: what YAML itself refuses is said with its line, and is no traceback."""
    [found] = problems(tmp_path, text)
    assert found.startswith(f"{line}: ")
    assert words in found


_FAR = "9" * 400


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("poll:\n  interval: !!int ''\n", 2, "poll.interval has an impossible value (int)"),
        ("policy:\n  unmanaged: !!bool x\n", 2, "policy.unmanaged has an impossible value (bool)"),
        (f"poll:\n  interval: {_FAR}\n", 2, "poll.interval must be between"),
        (f"\npoll:\n  jitter: {_FAR * 20}\n", 3, "poll.jitter "),
        ("\nstate_dir: 2024-13-45\n", 2, "state_dir has an impossible value (timestamp)"),
        ("state_dir: !!timestamp x\n", 1, "state_dir has an impossible value (timestamp)"),
        ("pins:\n- 2024-13-45\n", 2, "pins has an impossible value (timestamp)"),
        ("targets:\n- user: root\n  path: !!int ''\n", 3, "targets.path has an impossible value"),
        ('\nstate_dir: "\\UFFFFFFFF"\n', 2, "not valid YAML: "),
        ("[" * 600, 1, "nested too deeply"),
    ],
)
def test_impossible_value(tmp_path: Path, text: str, line: int, words: str) -> None:
    """What YAML's own types cannot hold is a problem with its line, and no traceback."""
    [found] = problems(tmp_path, text)
    assert found.startswith(f"{line}: ")
    assert words in found
    assert ("nested" in found) == ("nested" in words)


def test_pins_are_checked_like_listed_keys(tmp_path: Path) -> None:
    """G2, configuration: each bad pin is named with its line and reason, and never shown itself."""
    text = f"""\
pins:
  - {PIN}
  - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== short
  - from="10.0.0.1" {PIN}
  - -----BEGIN OPENSSH PRIVATE KEY-----
  - "{PIN}\\n{PIN}"
"""
    found = problems(tmp_path, text)
    assert [(line.split(":")[0], line[line.rindex("(") :]) for line in found] == [
        ("3", "(truncated_blob)"),
        ("4", "(options)"),
        ("5", "(private_key)"),
        ("6", "(newline)"),
    ]
    assert "AAAA" not in "".join(found)


def test_an_address_that_may_not_be_asked(tmp_path: Path) -> None:
    """Polling: what core.url refuses is refused here with its line, not at the first request."""
    assert problems(tmp_path, "api: {url: 'http://console.vast.ai'}") == [
        "1: api.url must begin with https:// (http:// is for 127.0.0.1 and localhost only)"
    ]
    path = written(tmp_path, "api: {url: 'HTTPS://Console.vast.ai/'}")
    assert load(path, {}).api_url == "https://Console.vast.ai"


def test_variable_overrides(tmp_path: Path) -> None:
    """Configuration: VAST_URL overrides api.url, says that it does, and is checked like it."""
    path = written(tmp_path, "api: {url: https://a.example}")
    config = load(path, {"VAST_URL": "http://127.0.0.1:9/"})
    assert config.api_url == "http://127.0.0.1:9"
    assert config.sources["api.url"] == "the variable VAST_URL"
    assert load(path, {"VAST_URL": ""}).api_url == "https://a.example"
    [found] = problems(tmp_path, "", VAST_URL="http://a.example")
    assert found.startswith("the variable VAST_URL: api.url must begin with https://")


# The file


def test_which_file(tmp_path: Path) -> None:
    """Commands: --config wins over KEYSYNC_CONFIG; a missing file that was named is an error."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    named = written(one, "state_dir: /one")
    by_variable = written(other, "state_dir: /other")
    environment = {"KEYSYNC_CONFIG": by_variable}
    assert load(named, environment).state_dir == "/one"
    assert load(None, environment).state_dir == "/other"
    for path, where in ((f"{named}.not", {}), (None, {"KEYSYNC_CONFIG": f"{named}.not"})):
        with pytest.raises(ConfigInvalid) as caught:
            load(path, where)
        assert caught.value.kind == "config_missing"
        assert f"{named}.not" in caught.value.message
        assert "KEYSYNC_CONFIG" in caught.value.hint


@pytest.mark.skipif(os.path.exists("/etc/keysync"), reason="keysync is configured on this machine")
def test_missing_default_file() -> None:
    """Commands: a missing default file means all defaults."""
    assert values(load(None, {})) == values(Config())
    assert values(load(None, {"KEYSYNC_CONFIG": ""})) == values(Config())


@pytest.mark.parametrize("mode", [0o664, 0o602, 0o660, 0o666, 0o620])
def test_exposed_file(tmp_path: Path, mode: int) -> None:
    """G8: who can write the configuration can pin a key, so nobody but its owner may. That holds
    for group 0 too, which an ordinary user has on the platform.
    """
    path = Path(written(tmp_path, ""))
    path.chmod(mode)
    with pytest.raises(ConfigInvalid) as caught:
        load(str(path), {})
    error = caught.value
    assert (error.kind, error.exit_code) == ("config_exposed", 78)
    assert str(path) in error.message
    assert f"{mode:04o}" in error.message
    assert os.system(error.hint) == 0
    assert values(load(str(path), {})) == values(Config())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_file_of_another_user(tmp_path: Path) -> None:
    """G8: a file that another user owns is not believed, whatever its mode."""
    path = Path(written(tmp_path, ""))
    os.chown(path, 65534, 0)
    with pytest.raises(ConfigInvalid) as caught:
        load(str(path), {})
    assert caught.value.kind == "config_exposed"
    assert "65534" in caught.value.message
    assert os.system(caught.value.hint) == 0
    assert values(load(str(path), {})) == values(Config())


def test_unreadable_file(tmp_path: Path) -> None:
    """Configuration: what cannot be read is said with its reason."""
    with pytest.raises(ConfigInvalid) as caught:
        load(str(tmp_path), {})
    assert (caught.value.kind, caught.value.exit_code) == ("config_unreadable", 78)
    assert "directory" in caught.value.message


@pytest.mark.parametrize("what", ["pipe", "device"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, what: str) -> None:
    """G8: a named pipe would keep the agent waiting for ever, a device could be endless."""
    path = tmp_path / "config.yaml"
    if what == "pipe":
        os.mkfifo(path, 0o600)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(ConfigInvalid, match="not a regular file") as caught:
        load(str(path), {})
    assert caught.value.kind == "config_unreadable"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_link_of_another_user(tmp_path: Path) -> None:
    """G8: who owns the link chooses the configuration; the command in the hint mends it."""
    path = tmp_path / "the link.yaml"
    path.symlink_to(written(tmp_path, ""))
    os.chown(path, 65534, 0, follow_symlinks=False)
    with pytest.raises(ConfigInvalid) as caught:
        load(str(path), {})
    assert caught.value.kind == "config_exposed"
    _, _, command = caught.value.hint.partition(": ")
    assert os.system(command) == 0
    assert values(load(str(path), {})) == values(Config())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_folder_of_another_user(tmp_path: Path) -> None:
    """G8: who owns the folder can put another file of root's there under the same name."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = written(folder, "")
    os.chown(folder, 65534, 0)
    with pytest.raises(ConfigInvalid, match="user id 65534") as caught:
        load(path, {})
    assert caught.value.kind == "config_exposed"
    assert "Move the file" in caught.value.hint


def test_file_that_is_no_configuration(tmp_path: Path) -> None:
    """Configuration: a file is read whole or not at all, so that its end never gets lost unseen."""
    text = "state_dir: /srv\n" + "# padding\n" * 110_000 + "poll: {interval: 10s}\n"
    with pytest.raises(ConfigInvalid) as caught:
        load(written(tmp_path, text), {})
    assert caught.value.kind == "config_too_large"


# What is in effect


def test_effective_is_in_the_files_notation(tmp_path: Path) -> None:
    """Commands: what `config show` prints for a value can be written into the file as it is."""
    text = (
        "api: {timeout: 250ms, key_file: /k}\n"
        "poll: {interval: 90m, jitter: 0.5, max_backoff: 86399}\n"
        "policy: {max_staleness: 366d}\n"
    )
    config = load(written(tmp_path, text), {})
    shown = {name: value for name, value, _ in effective_options(config) if "[" not in name}
    assert shown["policy.max_staleness"] == "31622400s"
    assert shown["poll.max_backoff"] == "86399s"
    sections: dict[str, list[str]] = {}
    for name, value in shown.items():
        section, _, option = name.rpartition(".")
        sections.setdefault(section, []).append(f"{option}: {value}")
    again = "\n".join(sections.pop("")) + "\n"
    again += "".join(f"{name}: {{{', '.join(rest)}}}\n" for name, rest in sections.items())
    assert values(load(written(tmp_path, again), {})) == values(config)


def test_effective_says_where_from(tmp_path: Path) -> None:
    """Commands: each value has its source: the default, a line of the file, or a variable."""
    path = written(
        tmp_path, f"poll: {{jitter: 1s}}\npins:\n  - {PIN}\ntargets: [{{user: a, path: /b}}]"
    )
    rows = effective_options(load(path, {"VAST_URL": "https://a.example"}))
    sources = {name: (value, source) for name, value, source in rows}
    assert sources["poll.interval"] == ("30s", "default")
    assert sources["poll.jitter"] == ("1s", f"{path}:1")
    assert sources["api.url"] == ("https://a.example", "the variable VAST_URL")
    assert sources["targets[0]"] == ("a /b", f"{path}:4")
    assert sources["pins[0]"] == (f"{fingerprint(PIN)} emergency", f"{path}:2")
