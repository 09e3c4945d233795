"""The demo's voice: plain lines, and no claim that does not hold."""

import io

import pytest

from sandbox.story import Story, WrongOutcome


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_claim_that_holds_is_shown() -> None:
    """A claim that holds is one line that begins with ok, and is counted."""
    out = io.StringIO()
    story = Story(out)
    story.claim("the door is open", True, "it was shut")
    assert out.getvalue() == "   ok the door is open\n"
    assert story.claims == 1


def test_a_claim_that_does_not_hold_ends_the_story() -> None:
    """A wrong outcome raises, says what was found instead, and is never shown as ok."""
    out = io.StringIO()
    story = Story(out)
    with pytest.raises(WrongOutcome, match=r"^the door is open: it was shut$"):
        story.claim("the door is open", False, "it was shut")
    assert (out.getvalue(), story.claims) == ("", 0)


def test_a_command_is_shown_with_its_output() -> None:
    """Every line of the output is shown, marked as such and never wrapped."""
    out = io.StringIO()
    story = Story(out)
    story.command("keysync sync", f"first\n\n{'x' * 200}\n")
    assert out.getvalue() == f"   $ keysync sync\n   | first\n   |\n   | {'x' * 200}\n"


def test_chapters_are_numbered() -> None:
    """Chapters count from one, an empty line before each."""
    out = io.StringIO()
    story = Story(out)
    story.chapter("One")
    story.chapter("Two")
    assert out.getvalue() == "\n1. One\n\n2. Two\n"


@pytest.mark.parametrize(
    ("stream", "no_color", "coloured"),
    [
        (io.StringIO, "", False),
        (Terminal, "", True),
        (Terminal, "1", False),
    ],
)
def test_colour(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], no_color: str, coloured: bool
) -> None:
    """Colour is for a terminal only, and never when NO_COLOR has a value (no-color.org)."""
    monkeypatch.setenv("NO_COLOR", no_color)
    out = stream()
    story = Story(out)
    story.claim("the door is open", True)
    assert ("\033[" in out.getvalue()) is coloured
