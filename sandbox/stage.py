"""An instance of the console's account, with the real agent running beside its sshd."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sandbox.console import Console
from sandbox.instance import Instance
from sandbox.platform import LiveInstance
from sandbox.scene import clean_environment

_REPOSITORY = Path(__file__).resolve().parent.parent
_START_SECONDS = 30.0
_END_SECONDS = 10.0
_PAUSE = 0.02


class StageError(RuntimeError):
    """The agent did not start; the message holds the end of its log."""


@contextmanager
def instance_with_agent(
    console: Console, running: Instance | None = None
) -> Iterator[LiveInstance]:
    """Create an instance as the platform does, and run the agent on it until the end.

    Its sshd is the one that runs already, if one is given.
    """
    with ExitStack() as stack:
        instance = running or stack.enter_context(Instance())
        temporary = tempfile.TemporaryDirectory(prefix="keysync-agent-")
        where = Path(stack.enter_context(temporary))
        configuration = _configured(console, instance, where)
        number = console.world.platform.add_instance(
            "C.1",
            keys_file=instance.authorized_keys,
            ssh_host=instance.host,
            ssh_port=instance.port,
            ssh_user=instance.user,
            agent_config=configuration,
        )
        try:
            with _agent(configuration, where):
                yield _live(console, number)
        finally:
            console.world.platform.remove_instance(number)


def _configured(console: Console, instance: Instance, where: Path) -> Path:
    """Write the agent's configuration, and its API key closed to others."""
    secret = where / "api_key"
    secret.touch(mode=0o600)
    secret.write_text(f"{console.api_key}\n")
    configuration = where / "config.yaml"
    configuration.write_text(
        f"api:\n"
        f"  url: {console.url}\n"
        f"  key_file: {json.dumps(str(secret))}\n"
        f"poll:\n"
        f"  interval: 2s\n"
        f"  jitter: 0s\n"
        f"  max_backoff: 5s\n"
        f"policy:\n"
        f"  removal_hold: 4s\n"
        f"targets:\n"
        f"  - user: {json.dumps(instance.user)}\n"
        f"    path: {json.dumps(str(instance.authorized_keys))}\n"
        f"state_dir: {json.dumps(str(where / 'state'))}\n"
    )
    return configuration


@contextmanager
def _agent(configuration: Path, where: Path) -> Iterator[None]:
    """`python -m agent run` in a group of its own: Ctrl-C is for us, who then end it in order."""
    log = where / "agent.log"
    command = [sys.executable, "-m", "agent", "--config", str(configuration), "run"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=_REPOSITORY,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _until((where / "state" / "state.json").exists, process, log)
        yield
    finally:
        _end(process)


def _until(done: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not done():
        if process.poll() is not None or time.monotonic() >= deadline:
            raise StageError(f"the agent did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(_PAUSE)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _live(console: Console, number: int) -> LiveInstance:
    return next(each for each in console.world.platform.instances() if each.id == number)
