"""`python -m sandbox.demo`: the console, a real sshd and the real agent, told step by step.

Exits 0 only when every claim held; the first one that does not is the last line.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import httpx

from sandbox.console import Console
from sandbox.daemon import SshdError
from sandbox.instance import Instance, InstanceError
from sandbox.scene import FORCED, Scene, person_at
from sandbox.story import Story, WrongOutcome
from sandbox.users import UserError

_EXPECTED = (
    WrongOutcome,
    InstanceError,
    SshdError,
    UserError,
    httpx.HTTPError,
    subprocess.TimeoutExpired,
    OSError,
)


def machine_as_made(scene: Scene) -> None:
    """Write the keys file as the platform and then a person left it."""
    laptop, backup = scene.new_key("laptop"), scene.new_key("backup")
    scene.person.add(laptop.public_line)
    scene.instance.authorize(
        laptop.public_line,
        "# nightly backup, written by hand",
        f'restrict,command="echo {FORCED}" {backup.public_line}',
    )
    scene.story.say(
        "At creation the platform wrote the account's one key, laptop, as a plain line. Somebody "
        "added a line for backup by hand; its options allow one command only."
    )
    scene.show_key_file()
    scene.gets_in("laptop", "the platform's plain line")
    scene.is_forced("backup")


def first_sync(scene: Scene) -> None:
    """The plain key is adopted, what a person wrote stays byte for byte."""
    before = scene.key_file().split(b"\n")
    scene.agent("sync")
    scene.show_key_file()
    after = scene.key_file().split(b"\n")
    adopted = after[0] != before[0] and after[0].startswith(blob_of(scene, "laptop"))
    scene.story.claim("laptop's line is adopted: same key, same place, now tagged", adopted)
    scene.story.claim("the comment and the restricted line are unchanged", after[1:] == before[1:])
    scene.gets_in("laptop", "listed on the console")
    scene.is_forced("backup")


def second_sync(scene: Scene) -> None:
    """With nothing to do, nothing is written."""
    before = scene.instance.authorized_keys.stat()
    scene.agent("sync")
    after = scene.instance.authorized_keys.stat()
    same = (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    scene.story.claim("the file has the same inode and the same time of change", same)


def key_added(scene: Scene) -> None:
    """A key added on the console gets in after the next sync, not before."""
    scene.story.say("desktop is added on the console's Keys page.")
    scene.person.add(scene.new_key("desktop").public_line)
    scene.is_refused("desktop", "this machine does not know it yet")
    scene.agent("sync")
    scene.gets_in("desktop", "added")


def key_edited(scene: Scene) -> None:
    """An edited key is out, what replaced it is in."""
    scene.story.say("desktop gets a new key: its entry on the console is edited.")
    new = scene.new_key("new-desktop").public_line
    scene.person.edit(scene.keys["desktop"].public_line, new)
    scene.agent("sync")
    scene.is_refused("desktop", "replaced")
    scene.gets_in("new-desktop", "its replacement")


def key_deleted(scene: Scene) -> None:
    """A deleted key is out, also the one that the platform itself wrote."""
    scene.story.say("laptop is stolen: its key is deleted on the console.")
    scene.person.delete(scene.keys["laptop"].public_line)
    scene.gets_in("laptop", "the platform leaves running machines open")
    scene.agent("sync")
    scene.is_refused("laptop", "deleted")
    scene.gets_in("new-desktop", "still listed")
    scene.is_forced("backup")


def key_put_back(scene: Scene) -> None:
    """A revoked key that something puts back is removed again."""
    scene.story.say("Another tool appends laptop's old line to the file.")
    with scene.instance.authorized_keys.open("a") as file:
        file.write(f"{scene.keys['laptop'].public_line}\n")
    scene.gets_in("laptop", "put back behind the console's back")
    scene.agent("sync")
    scene.is_refused("laptop", "revocation sticks")


def key_with_a_restricted_line(scene: Scene) -> None:
    """A restricted line is its owner's: never undercut, never removed, but never hushed up."""
    line = scene.keys["backup"].public_line
    scene.story.say("The key of the restricted line, backup, is added on the console as well.")
    scene.person.add(line)
    before = scene.key_file()
    scene.agent("sync")
    scene.story.claim("no second line was written for it", scene.key_file() == before)
    scene.is_forced("backup")
    scene.story.say("It is deleted there again.")
    scene.person.delete(line)
    output = scene.agent("sync")
    said = any(
        "still authorized" in line and scene.keys["backup"].fingerprint in line
        for line in output.split("\n")
    )
    scene.story.claim("the line stays, and the agent says that it still lets backup in", said)
    scene.is_forced("backup")


def who_can_log_in(scene: Scene) -> None:
    """The status names everybody who can log in, and why."""
    output = scene.agent("status")
    for name, reason in (("new-desktop", "managed"), ("backup", "restricted")):
        named = scene.keys[name].fingerprint in output and reason in output.lower()
        scene.story.claim(f"{name} is named by fingerprint, as {reason}", named)
    gone = scene.keys["laptop"].fingerprint not in output
    scene.story.claim("laptop is not among them", gone)


def outage(scene: Scene) -> None:
    """While the console is down, everybody keeps the access they had."""
    scene.story.say("The console stops answering: it accepts a connection and drops it.")
    unchanged_while(scene, "outage", exits=75)


def empty_list(scene: Scene) -> None:
    """An empty list is held, not obeyed."""
    scene.story.say("The console answers 200 with an empty list, as after an accident.")
    unchanged_while(scene, "empty_list", exits=3)


def bad_entry(scene: Scene) -> None:
    """A bad entry is rejected by name, and the good ones apply."""
    path = "/home/me/.ssh/id_ed25519.pub"
    scene.story.say(f"Somebody pastes a file name, {path}, and then a good key, tablet.")
    bad = scene.person.add(path)
    scene.person.add(scene.new_key("tablet").public_line)
    output = scene.agent("sync")
    named = "reject" in output.lower() and str(bad) in output
    scene.story.claim(f"the entry with id {bad} is named as rejected", named)
    scene.gets_in("tablet", "the good entry beside it")
    scene.gets_in("new-desktop", "still listed")
    scene.is_forced("backup")


STEPS: tuple[tuple[str, Callable[[Scene], None]], ...] = (
    ("A machine as the platform made it", machine_as_made),
    ("The first sync adopts what is there", first_sync),
    ("A second sync writes nothing", second_sync),
    ("A key is added", key_added),
    ("A key is edited", key_edited),
    ("A key is deleted", key_deleted),
    ("A deleted key comes back by another door", key_put_back),
    ("A listed key has a restricted line", key_with_a_restricted_line),
    ("Who can log in, and why", who_can_log_in),
    ("An outage locks nobody out", outage),
    ("One empty list locks nobody out", empty_list),
    ("A bad entry does not stop the good ones", bad_entry),
)


def unchanged_while(scene: Scene, fault: str, *, exits: int) -> None:
    """Claim that a sync with a fault switched on changes nothing and locks nobody out."""
    before = scene.key_file()
    scene.console.fault = fault
    scene.agent("sync", exits=exits)
    scene.console.fault = None
    scene.story.claim("the keys file is unchanged", scene.key_file() == before)
    scene.gets_in("new-desktop", "nobody is locked out")
    scene.is_forced("backup")


def blob_of(scene: Scene, name: str) -> bytes:
    """The type and blob at the start of a key's public line (sshd(8), AUTHORIZED_KEYS)."""
    return " ".join(scene.keys[name].public_line.split(" ")[:2]).encode()


def tell(scene: Scene) -> None:
    """Go through the steps; the first claim that does not hold raises `WrongOutcome`."""
    scene.write_configuration()
    for title, step in STEPS:
        scene.story.chapter(title)
        step(scene)


def play(story: Story) -> None:
    """Set the stage, tell the story, and clear the stage whatever happens."""
    with (
        Console() as console,
        Instance() as instance,
        tempfile.TemporaryDirectory(prefix="keysync-demo-") as directory,
        person_at(console) as person,
    ):
        story.say(
            f"The console's API is at {console.url}, the instance's sshd at "
            f"{instance.host}:{instance.port} for {instance.user}; both are real and on loopback. "
            "Every line that says ssh is a login tried just then; of each command its result is "
            "shown, not its log."
        )
        tell(Scene(story, console, instance, person, Path(directory), {}))


def main() -> int:
    """Run the demo and return its exit code: 0 when every claim held, 1 otherwise."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    story, start = Story(), time.monotonic()
    try:
        play(story)
    except BrokenPipeError:
        # Whoever read the story has gone; without this Python complains at exit as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except _EXPECTED as error:
        story.wrong(str(error))
        return 1
    story.heading("In short")
    story.say(
        f"All {story.claims} claims held, in {time.monotonic() - start:.0f} s. The machine "
        "followed the console: what was added there got in, what was edited or deleted there was "
        "refused, also when it was put back. What a person had written by hand was not touched, "
        "and a bad entry stopped nothing but itself. "
        "And no silence of the console, and no single empty list, locked anybody out."
    )
    return 0


def _leave(number: int, _frame: FrameType | None) -> None:
    """Unwind once, so that sshd, the directories and a temporary user go before the process."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
