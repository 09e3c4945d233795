"""The fault switches in words: what each does to the API, and what a good agent does then."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FaultWords:
    """One switch; `name` is that of `sandbox.faults`."""

    name: str
    title: str
    does: str
    expect: str


_WORDS = (
    FaultWords(
        "outage",
        "Outage",
        "Every connection is closed without a word.",
        "The agent keeps all keys and asks less and less often; the age of its last success grows.",
    ),
    FaultWords(
        "slow",
        "Slow",
        "The right answer comes seconds late.",
        "The agent waits, up to api.timeout, and stays in sync.",
    ),
    FaultWords(
        "error_500",
        "Server error",
        "Every answer is a 500.",
        "The agent keeps all keys and asks again later.",
    ),
    FaultWords(
        "rate_limited",
        "Rate limit",
        "Every answer is a 429 in plain text, without Retry-After.",
        "The agent keeps all keys and slows down.",
    ),
    FaultWords(
        "empty_list",
        "Empty list",
        "The list is well-formed and has no keys in it.",
        "The agent holds it for three polls, some seconds here, then obeys: put it back before.",
    ),
    FaultWords(
        "html",
        "HTML page",
        "A web page with status 200, as a captive portal or a proxy sends it.",
        "The agent does not take it for an empty list, and keeps all keys.",
    ),
    FaultWords(
        "truncated",
        "Cut-off answer",
        "The first half of the right answer.",
        "The agent does not use a part of a list, and keeps all keys.",
    ),
    FaultWords(
        "another_account",
        "Another account",
        "The list of a stranger's account.",
        "The agent refuses it: who holds that account does not get in here.",
    ),
)
FAULT_WORDS = {words.name: words for words in _WORDS}
