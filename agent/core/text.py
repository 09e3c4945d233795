"""Text of others, made safe to show."""

from __future__ import annotations


def printable(text: str, limit: int = 80) -> str:
    """At most `limit` characters of `text`, with non-printable characters escaped."""
    safe = text
    if not text.isprintable():
        safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    safe = safe.strip()
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"
