"""Reading the fields of a form."""

from starlette.datastructures import FormData


def text_of(form: FormData, name: str) -> str:
    """A field's text without blanks around it; a file or a missing field is empty.

    Browsers send each line break as CR LF (HTML, "constructing the entry list"). Half surrogates
    cannot be stored, so each becomes a question mark.
    """
    value = form.get(name)
    text = value if isinstance(value, str) else ""
    return text.replace("\r\n", "\n").encode("utf-8", "replace").decode().strip()
