"""The account's list as a value: which entries hold a key, and which keys count as listed."""

from __future__ import annotations

import pytest

from agent.core.listing import ListedKey, Listing, RejectedEntry, judge_entry
from agent.core.public_key import PublicKey, without_sshd
from tests.core.support import ed25519, ed25519_blob, joined, rsa_blob, text_of

FLOOR = 2048
KEYS = tuple(map(ed25519, range(4)))
TEXTS = tuple(text_of(ed25519_blob(at), f"key {at}") for at in range(4))


def judge(text: str | None, key_id: int | None = 10) -> ListedKey | RejectedEntry:
    return judge_entry(text, key_id, FLOOR, without_sshd)


def listing(*texts: str | None) -> Listing:
    """A list with these entries; their ids count from 10."""
    return Listing.of((judge(text, 10 + at) for at, text in enumerate(texts)), 7)


def test_a_list_has_keys_and_refused_entries_in_order() -> None:
    """G2: a bad entry never stops the good ones; identity is the blob, and the first one counts."""
    found = listing(TEXTS[1], "hello", TEXTS[0], f"{TEXTS[1]} again", None)
    assert found.keys == (ListedKey(KEYS[1], "key 1", 10), ListedKey(KEYS[0], "key 0", 12))
    assert [(one.key_id, one.reason) for one in found.rejected] == [
        (11, "not_a_key"),
        (14, "no_key_text"),
    ]
    assert found.account_id == 7
    assert found.usable == {KEYS[0].fingerprint, KEYS[1].fingerprint}


def test_what_is_present_counts_refused_entries_too() -> None:
    """R5: a key in an entry that is not accepted is still on the console, so it is not revoked."""
    found = listing(TEXTS[0], f"restrict {TEXTS[1]}", "hello")
    assert found.present == {KEYS[0].fingerprint, KEYS[1].fingerprint}
    assert Listing((), (), None).present == frozenset()


def test_a_key_is_spared_when_only_the_form_of_its_entry_is_refused() -> None:
    """G2: a bad entry changes nothing for its key, unless the key itself is too weak."""
    weak = listing(text_of(rsa_blob(1024)))
    for form in (f"{TEXTS[1]} a\nb", f"restrict {TEXTS[1]}", f"{TEXTS[1]} {TEXTS[2]}"):
        found = listing(TEXTS[0], form, text_of(rsa_blob(1024)))
        assert KEYS[1].fingerprint in found.listed_but_malformed
        assert found.listed_but_malformed < found.present
        assert found.listed_but_malformed.isdisjoint({KEYS[0].fingerprint} | weak.present)
    assert weak.listed_but_malformed == frozenset()
    assert len(weak.present) == 1


# ---- key types (G2) ----

UNKNOWN = PublicKey.from_blob(joined([b"ssh-mldsa44-ed25519", b"x" * 1344]))


@pytest.mark.parametrize("answer", [True, False, None])
def test_sshd_says_whether_an_unknown_type_may_enter(answer: bool | None) -> None:
    """Incident 30: a key of a newer type is refused only where sshd would refuse it, by name."""
    text = UNKNOWN.line("me").decode()
    judged = judge_entry(text, 10, FLOOR, lambda _: answer)
    found = Listing.of([judged], 7)
    assert found.present == {UNKNOWN.fingerprint}
    if answer:
        assert judged == ListedKey(UNKNOWN, "me", 10)
        return
    assert isinstance(judged, RejectedEntry)
    assert judged.reason == "unsupported_by_sshd"
    assert UNKNOWN.key_type in judged.detail
    assert ("could not be asked" in judged.detail) == (answer is None)
    assert found.listed_but_malformed == {UNKNOWN.fingerprint}
    assert answer is False or judge(text) == judged


@pytest.mark.parametrize("answer", [True, False, None])
def test_a_known_type_is_kept_out_only_when_sshd_refuses_it(answer: bool | None) -> None:
    """G2: an sshd that cannot be asked locks nobody out."""
    found = Listing.of([judge_entry(TEXTS[0], 10, FLOOR, lambda _: answer)], 7)
    reasons = [one.reason for one in found.rejected]
    assert reasons == (["unsupported_by_sshd"] if answer is False else [])
    assert found.present == {KEYS[0].fingerprint}
    assert found.listed_but_malformed == (found.present if answer is False else frozenset())


def test_sshd_is_asked_only_about_good_entries() -> None:
    """G2: asking costs a process, so a bad entry causes no question."""
    asked = []

    def accepts(key_type: str) -> bool:
        asked.append(key_type)
        return True

    unknown = UNKNOWN.line().decode()
    bad = {
        "options": f"restrict {unknown}",
        "type_mismatch": unknown.replace("ssh-", "ssi-", 1),
        "empty": "",
        "no_key_text": None,
    }
    for reason, text in bad.items():
        judged = judge_entry(text, 10, FLOOR, accepts)
        assert isinstance(judged, RejectedEntry)
        assert judged.reason == reason
    assert asked == []
    judge_entry(unknown, 10, FLOOR, accepts)
    assert asked == ["ssh-mldsa44-ed25519"]


# ---- an entry that is refused for its form (G2) ----


def test_an_entry_of_bad_form_protects_the_key_that_its_id_held_before() -> None:
    """G2: a slip in the console's text field takes nobody's key away."""
    bad = {
        1: f"{TEXTS[1]}\n{TEXTS[2]}",
        2: f"restrict {TEXTS[1]}",
        3: "hello",
        4: "",
        5: "-----BEGIN OPENSSH PRIVATE KEY-----",
        6: TEXTS[1][:-20],
        7: None,
    }
    found = Listing.of([judge(TEXTS[0]), *(judge(text, at) for at, text in bad.items())], 7)
    assert found.malformed_ids == set(bad)
    protected = found.protecting(frozenset({KEYS[3].fingerprint}))
    assert KEYS[3].fingerprint in protected.present & protected.listed_but_malformed
    assert KEYS[3].fingerprint not in found.present | found.listed_but_malformed
    assert (protected.keys, protected.rejected) == (found.keys, found.rejected)
    assert protected.present - found.present == {KEYS[3].fingerprint}


def test_an_entry_that_says_clearly_which_key_it_holds_protects_no_other() -> None:
    """R2: editing a key on the console is old out, new in, also when the new one is refused."""
    found = listing(TEXTS[3], text_of(rsa_blob(1024)), UNKNOWN.line().decode())
    assert [one.reason for one in found.rejected] == ["rsa_too_small", "unsupported_by_sshd"]
    assert found.malformed_ids == frozenset()


def test_rejected_entries_are_values() -> None:
    """Logs: an entry is reported when it is new or changed, so two of them can be compared."""
    first = judge("hello")
    assert isinstance(first, RejectedEntry)
    assert first == judge("hello") == RejectedEntry(10, "not_a_key", first.detail)
