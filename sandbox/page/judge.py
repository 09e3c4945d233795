"""What speaks against storing a pasted text as an SSH key.

The real console stores whatever it is given. This page refuses only what can never be meant
(nothing at all, a private key), and asks once before it stores anything else that cannot work.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sandbox.account import StoredKey
from sandbox.page.key_text import Doubt, read_key
from sandbox.page.private_key import is_private

_EMPTY = "Paste a public key: one line from a file that ends in .pub."
_PRIVATE = (
    "This is a private key, so it was not stored. Paste the public half, from the file that ends "
    "in .pub. A private key that was pasted somewhere is better replaced: ssh-keygen -t ed25519"
)
_TEAM = "A team account cannot hold SSH keys; each member adds them to an account of their own."


@dataclass(frozen=True, slots=True)
class Judgement:
    """Refused for good, or asked about once; `code` is what the form sends back for "anyway"."""

    code: str
    text: str = ""
    final: bool = False
    keeps_text: bool = True
    answered: bool = False

    @property
    def stops(self) -> bool:
        """Whether the text is not stored now."""
        return bool(self.code) and not self.answered


def judge(
    text: str, anyway: str, others: Sequence[StoredKey], *, is_team: bool = False
) -> Judgement:
    """Look at a text; `anyway` is the code of the doubt that the person has seen and waved away."""
    if is_team:
        return Judgement("team", _TEAM, final=True)
    if not text:
        return Judgement("empty", _EMPTY, final=True)
    if is_private(text):
        return Judgement("private", _PRIVATE, final=True, keeps_text=False)
    doubt = _doubt(text, others)
    if doubt is None:
        return Judgement("")
    return Judgement(doubt.code, doubt.text, answered=anyway == doubt.code)


def _doubt(text: str, others: Sequence[StoredKey]) -> Doubt | None:
    key = read_key(text)
    if key.doubt is not None:
        return key.doubt
    for other in others:
        known = read_key(other.text)
        if known.fingerprint == key.fingerprint:
            return Doubt("double", f"The same key is on the list already, as {known.name}.")
    return None
