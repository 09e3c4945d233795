"""API keys by the provider's own client, and an agent that lives by one of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from sandbox.platform import LiveInstance
from sandbox.scene import clean_environment
from sandbox.stage import instance_with_agent
from tests.clients.support import REPOSITORY, Setting
from tests.support.bad_server import eventually

_LIVE_SECONDS = 60  # an agent of the stage polls every two seconds, and backs off to five


def _make(setting: Setting, *categories: str) -> dict[str, Any]:
    """`create api-key` with a permission file."""
    permissions: dict[str, object] = {"api": {category: {} for category in categories}}
    file = setting.world.config.with_name("permissions.json")
    file.write_text(json.dumps(permissions))
    made = setting.client.run(
        "create", "api-key", "--name", "agent", "--permission_file", str(file)
    )
    assert made.made["permissions"] == permissions
    return made.made


def _is_rejected(report: dict[str, Any], value: str, source: Path) -> None:
    """Says why, what the key needs and where it came from, and does not say the key (G10)."""
    assert report["error"]["kind"] == "credential_rejected"
    assert f"…{value[-4:]} from {source}." in report["error"]["message"]
    assert "user_read" in report["error"]["hint"]
    assert value not in json.dumps(report)


def test_a_key_that_may_only_read_the_user(setting: Setting) -> None:
    """`user_read` is all that the agent needs; the list shows the key, never its value. Deleted
    it is dead at once: 77, and the SSH keys stay.
    """
    made = _make(setting, "user_read")
    source = setting.agents_api_key(made["key"])
    key = setting.new_key()
    setting.console.add_key(key.public_line)
    setting.world.sync()
    assert setting.in_(key)
    shown = setting.client.run("show", "api-keys", "--raw").out
    [mine] = [each for each in json.loads(shown)["apikeys"] if each["id"] == made["id"]]
    assert (mine["name"], mine["rights"]) == ("agent", "user_read")
    assert made["key"] not in shown
    deleted = setting.client.run("delete", "api-key", str(made["id"]))
    assert deleted.out.strip() == "Successfully Deleted API Key"
    _is_rejected(setting.world.sync(exits=77), made["key"], source)
    assert setting.in_(key)


def test_a_key_that_may_not_read_the_user(setting: Setting) -> None:
    """API key: without `user_read` neither the client nor the agent can list; both say so."""
    key = setting.listed_key()
    made = _make(setting, "user_write", "instance_read", "instance_write")
    refused = setting.as_(made["key"]).tries("show", "ssh-keys")
    assert "Failed with error 403" in refused.err
    assert "user_read" in refused.err
    source = setting.agents_api_key(made["key"])
    before = setting.world.lines
    report = setting.world.sync(exits=77)
    _is_rejected(report, made["key"], source)
    assert "This API key may not do this: it needs user_read" in report["error"]["message"]
    assert setting.world.lines == before
    assert setting.in_(key)


def test_a_reset_key_and_a_running_agent(setting: Setting) -> None:
    """After `reset api-key` the old value is dead at once. The daemon says that its key was
    rejected and where it has it from, keeps the SSH keys, and goes on by itself when its key file
    holds the new value.
    """
    old = setting.console.api_key
    key, later = setting.new_key(), setting.new_key()
    setting.console.add_key(key.public_line)
    with instance_with_agent(setting.console, setting.instance) as live:
        assert live.agent_config is not None
        source = live.agent_config.with_name("api_key")
        assert eventually(lambda: setting.in_(key), _LIVE_SECONDS)
        said = setting.client.run("reset", "api-key").out
        new = said.removeprefix("New api-key: ").strip()
        assert "Invalid user key" in setting.client.tries("show", "ssh-keys").err
        assert eventually(lambda: bool(_status(live)["failing"]), _LIVE_SECONDS)
        _is_rejected({"error": _status(live)["last_error"]}, old, source)
        assert setting.in_(key)
        renewed = setting.as_(new)
        renewed.run("create", "ssh-key", later.public_line)
        assert not setting.in_(later)
        source.write_text(f"{new}\n")
        assert eventually(lambda: setting.in_(later), _LIVE_SECONDS)
        assert eventually(lambda: not _status(live)["failing"], _LIVE_SECONDS)
        assert setting.in_(key)
        assert _starts(live) == 1


def _status(live: LiveInstance) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "agent", "--config", str(live.agent_config), "status", "--json"],
        cwd=REPOSITORY,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _starts(live: LiveInstance) -> int:
    assert live.agent_config is not None
    events = map(json.loads, live.agent_config.with_name("agent.log").read_text().splitlines())
    return sum(event["event"] == "agent.started" for event in events)
