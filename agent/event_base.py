"""The base classes of events: frozen values that are built with keyword arguments.

mypy checks an event like a dataclass, but it costs little to define: 31 dataclasses would add 14 ms
to every start of keysync.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from agent.core.results import Trigger

if TYPE_CHECKING:
    from typing_extensions import Self, dataclass_transform
else:

    def dataclass_transform(**_):  # typing has it from Python 3.11 on
        return lambda kind: kind


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Event:
    """`name` is `noun.past_verb`; `level` is one of debug, info, warning, error.

    The annotations of a subclass are its fields, with class attributes as their defaults.
    """

    name: ClassVar[str]
    level: ClassVar[str] = "info"
    fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls.fields += tuple(cls.__annotations__)

    def __init__(self, **values: object) -> None:
        vars(self).update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{self.name} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.values() == other.values()

    def __hash__(self) -> int:
        return hash(tuple(self.values().items()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.values()})"

    def values(self) -> dict[str, object]:
        """All fields in the order of the log line."""
        return {field: getattr(self, field) for field in self.fields}

    def replace(self, **changes: object) -> Self:
        """A copy with other values in some fields."""
        return type(self)(**{**vars(self), **changes})


class CycleEvent(Event):
    """Something that happened in one cycle, which fills in `sync_id` and `trigger`."""

    sync_id: str = ""
    trigger: Trigger = Trigger.MANUAL


class FileEvent(CycleEvent):
    """Something about one key file, and the user whose file it is."""

    user: str
    path: str
