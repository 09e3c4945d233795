"""From templates to answers; everything that is put into a template is escaped."""

from datetime import datetime, timezone
from pathlib import Path

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sandbox.page.key_text import printable

_FOLDER = Path(__file__).parent / "html"
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def render(template: str, status: int = 200, /, **values: object) -> HTMLResponse:
    """A whole page."""
    return HTMLResponse(fragment(template, **values), status)


def fragment(template: str, /, **values: object) -> str:
    """A part of a page; half a surrogate, which UTF-8 does not know, never gets out of here."""
    text = _ENVIRONMENT.get_template(template).render(values)
    return text.encode("utf-8", "backslashreplace").decode()


def distance(moment: str, now: datetime | None = None) -> str:
    """How long ago or ahead a time of the API is: `3 minutes ago`, `in 6 days`."""
    at = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    seconds = round(((now or datetime.now(timezone.utc)) - at).total_seconds())
    size, unit = next(((s, u) for s, u in _UNITS if abs(seconds) >= s), (1, ""))
    if not unit:
        return "just now"
    count = seconds // size if seconds > 0 else -(seconds // size)  # a week ahead is seven days
    words = f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return f"{words} ago" if seconds > 0 else f"in {words}"


def _time(moment: str) -> Markup:
    """A time element: its text is how long ago (page.js keeps it right), its title the moment."""
    shown = moment.replace("T", " ").replace("Z", " UTC")
    words = distance(moment)
    template = Markup('<time datetime="{}" title="{}">{}</time>')
    return template.format(moment, shown, words)


def _visible(value: object) -> object:
    """Texts of others with what cannot be seen, or turns the writing around, as escapes."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return printable(value, keep="\n\t")


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(_FOLDER),
    autoescape=True,
    finalize=_visible,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters["time"] = _time
