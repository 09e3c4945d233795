"""The bodies of the API's requests and answers, as its OpenAPI document describes them."""

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from sandbox import permissions


class Sent(BaseModel):
    """A request's body; what is not asked for is ignored."""

    model_config = ConfigDict(extra="ignore")


class Answered(BaseModel):
    """An answer's body; nothing else is in it."""

    model_config = ConfigDict(extra="forbid")


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip("\0"):
        raise ValueError("a text that is not empty is wanted")
    return value


def _permissions(value: object) -> dict[str, object]:
    if (wrong := permissions.problem(value)) is not None:
        raise ValueError(wrong)
    assert isinstance(value, dict)
    return value


def _key_params(value: object) -> dict[str, object]:
    """An object, or as the provider's own client sends it, an object as JSON text."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError("key_params must be an object")
    if not permissions.finite(found):
        raise ValueError("key_params must be JSON: neither NaN nor Infinity")
    return found


# Pydantic's own text refuses half a surrogate pair, which the platform stores like anything else.
Text = Annotated[
    str,
    PlainValidator(_text),
    WithJsonSchema({"type": "string", "minLength": 1, "pattern": "[^\\x00]"}),
]
_ENDPOINT = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "constraints": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "properties": {"eq": {}, "lte": {}, "gte": {}},
            },
        }
    },
}
_PERMISSIONS = {
    "type": "object",
    "required": ["api"],
    "additionalProperties": False,
    "properties": {
        "api": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                category: {"type": "object", "additionalProperties": _ENDPOINT}
                for category in permissions.CATEGORIES
            },
        }
    },
}
GivenPermissions = Annotated[
    dict[str, Any], PlainValidator(_permissions), WithJsonSchema(_PERMISSIONS)
]
KeyParams = Annotated[
    dict[str, Any],
    PlainValidator(_key_params),
    WithJsonSchema({"type": "object"}),
]


class SshKeyText(Sent):
    """A key to store, unchecked."""

    ssh_key: Text


class NewApiKey(Sent):
    """An API key to make; without permissions it gets those of the key that asks."""

    name: Annotated[str, PlainValidator(_text), WithJsonSchema({"type": "string", "minLength": 1})]
    permissions: GivenPermissions | None = None
    key_params: KeyParams | None = None


class WhoseKey(Sent):
    """Whose API key is reset: the platform knows no other than the caller's."""

    client_id: Literal["me"]


class Error(Answered):
    """The platform's usual error object."""

    success: Literal[False]
    error: str
    msg: str


class Message(Answered):
    """What the calls on API keys answer instead of the usual error object."""

    msg: str


class Success(Answered):
    """Done, and nothing to say about it."""

    success: Literal[True]


class SuccessMessage(Success):
    """Done."""

    msg: str


class _Entry(Answered):
    id: int
    user_id: int
    created_at: datetime
    deleted_at: datetime | None


class KeyEntry(_Entry):
    """An entry as it is documented."""

    key: str


class PublicKeyEntry(_Entry):
    """An entry as it is answered to a change, and known to some clients."""

    public_key: str


class SshKeyEntry(_Entry):
    """An entry as some clients know it."""

    ssh_key: str


Entries = list[KeyEntry] | list[PublicKeyEntry] | list[SshKeyEntry]


class WrappedEntries(Answered):
    """The list as some clients know it."""

    ssh_keys: Entries


class ChangedKey(Success):
    """The key that was made or changed."""

    key: PublicKeyEntry


class AttachedKeys(Success):
    """A list inside a text: encoded twice."""

    ssh_keys: Annotated[str, Field(json_schema_extra={"contentMediaType": "application/json"})]


class ApiKeyEntry(Answered):
    """An API key without its value."""

    id: int
    user_id: int
    name: str
    rights: str
    permissions: dict[str, Any]
    key_params: dict[str, Any]
    last_four: str
    team_id: int | None
    team_name: str | None
    created_at: datetime
    last_used_at: datetime | None


class ApiKeyEntries(Answered):
    """The account's API keys."""

    apikeys: list[ApiKeyEntry]


class MadeApiKey(Answered):
    """A new API key, its value shown this once."""

    id: int
    key: str
    permissions: dict[str, Any]


class NewValue(Success):
    """The new value of the key that asked."""

    new_api_key: str


class User(Answered):
    """Whose key it is."""

    id: int
    username: str
    email: str
    balance: float
    credit: float
    is_team: bool


class GpuNames(Answered):
    """What can be rented."""

    gpu_names: list[str]
