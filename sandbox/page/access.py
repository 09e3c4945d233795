"""Beside each SSH key: on which instances it works right now, and if not, why not."""

from collections.abc import Iterable
from dataclasses import dataclass

from sandbox.account import StoredKey
from sandbox.page.agent_status import AgentKey, AgentStatus
from sandbox.page.key_text import KeyText, read_key
from sandbox.page.live import View


@dataclass(frozen=True, slots=True)
class Access:
    """One key on one instance: a state to show, and the reason in a sentence.

    works         a line that sshd reads lets the key in
    restricted    only a line with options lets it in
    depends       only sshd can say: the line asks where somebody comes from
    certificates  the line is for certificates that the key signed, not for the key
    refused       the line is there, and sshd lets nobody in by it
    pending       the agent will put it there
    rejected      the agent refuses the entry
    held          the agent holds the list that has it
    waiting       the agent will put it there once somebody confirms it on the machine
    removed       the agent has applied a list of the API that does not have it
    absent        there is no agent that could put it there
    """

    instance_id: int
    label: str
    state: str
    why: str = ""
    command: str = ""  # what to run on the instance

    @property
    def words(self) -> str:
        """The state as people read it."""
        return "waiting for confirmation on the machine" if self.state == "waiting" else self.state


@dataclass(frozen=True, slots=True)
class KeyRow:
    """An SSH key of the account and where it works."""

    id: int
    key: KeyText
    created_at: str
    access: tuple[Access, ...]
    text: str = ""  # as it is stored


@dataclass(frozen=True, slots=True)
class Lingering:
    """A key that the account no longer has and that still opens an instance."""

    label: str
    name: str
    fingerprint: str
    state: str
    why: str


def key_rows(stored: Iterable[StoredKey], views: list[View]) -> list[KeyRow]:
    """The account's keys in the order of creation, each with its access on every instance."""
    rows = []
    for entry in stored:
        key = read_key(entry.text)
        access = tuple(_access(entry.id, key, view) for view in views)
        rows.append(KeyRow(entry.id, key, entry.created_at, access, entry.text))
    return rows


def lingering(stored: Iterable[StoredKey], views: list[View]) -> list[Lingering]:
    """What was deleted or replaced on this page and still lets somebody in."""
    listed = {read_key(entry.text).fingerprint for entry in stored}
    found = []
    for view in views:
        for key in view.keys:
            if key.fingerprint not in listed and _was_ours(key):
                state, why = _why_still(key, view)
                name = key.comment or key.fingerprint
                found.append(Lingering(view.instance.label, name, key.fingerprint, state, why))
    return found


def news(before: list[KeyRow], after: list[KeyRow]) -> list[str]:
    """What changed for people who hear the page instead of seeing it."""
    known = {(row.id, access.instance_id): access.state for row in before for access in row.access}
    return [
        f"{row.key.name}: {access.words} on {access.label}."
        for row in after
        for access in row.access
        if known.get((row.id, access.instance_id), access.state) != access.state
    ]


def _access(key_id: int, key: KeyText, view: View) -> Access:
    lines = [one for one in view.keys if one.fingerprint == key.fingerprint]
    state, why = _by_lines(key_id, lines, view) if lines else _without_lines(key_id, key, view)
    command = f"keysync sync --confirm-additions {key.fingerprint}" if state == "waiting" else ""
    return Access(view.instance.id, view.instance.label, state, why, command)


def _by_lines(key_id: int, lines: list[AgentKey], view: View) -> tuple[str, str]:
    """What the best of the key's lines does for it."""
    by_login = {
        login: [one for one in lines if one.login == login]
        for login in ("yes", "depends", "certificates")
    }
    plain = [one for one in by_login["yes"] if one.access != "restricted"]
    if plain:
        return "works", _waits_for_agent(key_id, plain, view)
    if lines_in := by_login["yes"]:
        return (
            "restricted",
            f"Only with its owner's options: {_options(lines_in)}.{_notes(lines_in)}",
        )
    if lines_in := by_login["depends"]:
        return (
            "depends",
            f"Only sshd can say, by the options {_options(lines_in)}.{_notes(lines_in)}",
        )
    if lines_in := by_login["certificates"]:
        return "certificates", _notes(lines_in).strip()
    return "refused", _notes(lines).strip()


def _without_lines(key_id: int, key: KeyText, view: View) -> tuple[str, str]:
    status = view.status
    if status is None:
        state = "absent" if view.instance.agent_config is None else "pending"
        return state, f"Not there: {view.problem}."
    if key_id in status.rejected:
        return "rejected", _sentence(status.rejected[key_id])
    if key.fingerprint in status.waiting:
        return "waiting", "The agent has never accepted this key before. Run there, as root:"
    return _not_there(status, view.instance.ssh_user)


def _not_there(status: AgentStatus, user: str) -> tuple[str, str]:
    if (hold := status.hold_of(user)) is not None:
        if hold.applied:
            return "removed", f"The agent has applied a list without it: {hold.in_words}"
        return "held", f"The agent holds the whole list: {hold.in_words}"
    if status.failing and status.error is not None:
        return "pending", f"The agent keeps what it had: {_sentence(status.error.message)}"
    return "pending", "The agent's next poll adds it."


def _why_still(key: AgentKey, view: View) -> tuple[str, str]:
    if key.access == "restricted":
        return "restricted", f"Still authorized by a restricted line ({_options([key])})."
    if key.access == "pinned":
        return "pinned", "Pinned in the agent's configuration."
    status = view.status
    hold = status.hold_of(view.instance.ssh_user) if status is not None else None
    if hold is not None and not hold.applied:
        return "held", f"The agent has not applied the new list yet: {hold.in_words}"
    if status is not None and status.failing and status.error is not None:
        return "pending", f"The agent keeps what it had: {_sentence(status.error.message)}"
    return "pending", "The agent's next poll removes it."


def _was_ours(key: AgentKey) -> bool:
    """Whether the account's list is why the key is there, or once was."""
    return key.login != "no" and (key.access == "managed" or key.key_id is not None)


def _waits_for_agent(key_id: int, lines: list[AgentKey], view: View) -> str:
    if view.status is None or any(one.access != "foreign" for one in lines):
        return ""
    if (why := view.status.rejected.get(key_id)) is not None:
        return f"By a line that the agent leaves alone, since it refuses this entry: {why}."
    return "By a line that the agent does not manage yet."


def _options(lines: list[AgentKey]) -> str:
    return ", ".join(dict.fromkeys(name for one in lines for name in one.options)) or "options"


def _notes(lines: list[AgentKey]) -> str:
    """What the agent says of the lines, after a blank; nothing when it says nothing."""
    notes = dict.fromkeys(one.note for one in lines if one.note)
    return "".join(f" {_sentence(note)}" for note in notes)


def _sentence(text: str) -> str:
    """The agent's words as a sentence of their own; a program keeps its name."""
    first = text[:1] if text.startswith("sshd ") else text[:1].upper()
    return f"{first}{text[1:].rstrip('.')}."
