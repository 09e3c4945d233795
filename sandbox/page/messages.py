"""What the page says after a form did its work, by the name that the address carries."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """One sentence, shown in the section it belongs to."""

    section: str
    text: str


NOTHING = Message("", "")
_MESSAGES = {
    "ssh-added": Message("ssh", "The SSH key was saved."),
    "ssh-split": Message("ssh", "Each of the pasted keys was saved as its own entry."),
    "ssh-edited": Message("ssh", "The SSH key was changed."),
    "ssh-deleted": Message("ssh", "The SSH key was deleted."),
    "ssh-gone": Message("ssh", "That SSH key is not on the list any more; nothing was changed."),
    "api-edited": Message("api", "The API key was changed; its value is still the same."),
    "api-deleted": Message("api", "The API key was deleted; it stopped working at once."),
    "api-gone": Message("api", "That API key is not on the list any more; nothing was changed."),
    "api-seen": Message("api", "That value was shown already; reset the key to get a new one."),
    "session-ended": Message("sessions", "That browser was signed out."),
    "session-gone": Message("sessions", "That session had ended already."),
    "attached": Message("instances", "The key was attached, and the instance's file rewritten."),
    "detached": Message("instances", "The key was detached, and the instance's file rewritten."),
    "rewritten": Message("instances", "The platform rewrote the instance's file."),
    "instance-gone": Message("instances", "That instance or key is gone; nothing was changed."),
    "fault-on": Message("faults", "The fault is on."),
    "fault-off": Message("faults", "The API answers as it should again."),
}


def message(name: str) -> Message:
    """The message of this name; nothing for a name that nobody gave."""
    return _MESSAGES.get(name, NOTHING)
