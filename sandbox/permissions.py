"""What an API key may do: categories of the console, narrowed to endpoints and their parameters.

Source: the provider's public page on permissions. `{"api": {"user_read": {}}}` grants a whole
category; `{"api": {"instance_read": {ENDPOINT: {"constraints": {"id": {"eq": 1227}}}}}}` one
endpoint of it for one instance. A constraint's value `$NAME` stands for `key_params["NAME"]`.
`{"api": {"user_read": {ROUTE: {"GET": {}}}}}` grants one method of a route, as the provider's
public code names routes and methods; a route may serve several endpoints.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeGuard

Permissions: TypeAlias = dict[str, object]

CATEGORIES = (
    "user_read",
    "user_write",
    "instance_read",
    "instance_write",
    "misc",
    "billing_read",
    "billing_write",
    "machine_read",
    "machine_write",
    "team_read",
    "team_write",
)
SSH_KEYS = "api.ssh.keys"  # the route of the account's list of SSH keys
_OPERATORS = ("eq", "lte", "gte")
_METHODS = frozenset({"GET", "POST", "PUT", "DELETE"})
_METHOD_NAMES = ", ".join(sorted(_METHODS))


@dataclass(frozen=True, slots=True)
class Call:
    """What a request asks for; `route` is empty where only the endpoint has a name."""

    category: str
    endpoint: str
    route: str
    method: str


def everything() -> Permissions:
    """All that the account itself may do."""
    return of(*CATEGORIES)


def of(*categories: str) -> Permissions:
    """These categories whole."""
    return {"api": {category: {} for category in categories}}


def only_for_keysync() -> Permissions:
    """Reading the list of SSH keys and nothing else: the least that the agent works with."""
    return {"api": {"user_read": {SSH_KEYS: {"GET": {}}}}}


def categories(permissions: Mapping[str, object]) -> list[str]:
    """The categories that are granted at least in part, in the console's order."""
    granted = _mapping(permissions.get("api"))
    return [category for category in CATEGORIES if category in granted]


def narrowed(permissions: Mapping[str, object], category: str) -> bool:
    """Whether a category that is granted is granted for some of its endpoints only."""
    return bool(_mapping(permissions.get("api")).get(category))


def problem(permissions: object) -> str | None:
    """What is wrong with permissions as somebody sent them; None when they can be enforced."""
    if not isinstance(permissions, dict) or set(permissions) != {"api"}:
        return 'permissions must be an object with the one member "api"'
    granted = permissions["api"]
    if not isinstance(granted, dict):
        return '"api" must be an object of categories'
    for category, endpoints in granted.items():
        if category not in CATEGORIES:
            return f"no such category; there are {', '.join(CATEGORIES)}"
        if not isinstance(endpoints, dict):
            return f"{category} must be an object of endpoints, empty for all of them"
        for rule in endpoints.values():
            if (wrong := _problem_of_rule(rule)) is not None:
                return f"{category}: {wrong}"
    return None


def exceeds(wanted: Mapping[str, object], mine: Mapping[str, object]) -> bool:
    """Whether a key with `mine` that makes one with `wanted` would give away more than it has."""
    have = _mapping(mine.get("api"))
    return any(
        category not in have or (have[category] != {} and not same(have[category], endpoints))
        for category, endpoints in _mapping(wanted.get("api")).items()
    )


def constrained(permissions: Mapping[str, object]) -> bool:
    """Whether any permission depends on a request's parameters, and so perhaps on `key_params`."""
    return any(
        _mapping(rule).get("constraints")
        for endpoints in _mapping(permissions.get("api")).values()
        for rule in _mapping(endpoints).values()
    )


def same(one: object, other: object) -> bool:
    """Whether two JSON values are the same; to Python `true` and `1.0` would be `1`."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def finite(value: object) -> bool:
    """Whether a value is JSON (RFC 8259 §6): Python's parser also takes NaN and Infinity."""
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return False
    return True


def allows(
    permissions: Mapping[str, object],
    call: Call,
    params: Mapping[str, object],
    key_params: Mapping[str, object],
) -> bool:
    """Whether a call with these path and body parameters is permitted."""
    granted = _mapping(permissions.get("api"))
    if call.category not in granted:
        return False
    endpoints = _mapping(granted[call.category])
    rules = [_mapping(endpoints[name]) for name in (call.endpoint, call.route) if name in endpoints]
    return not endpoints or any(
        _names_method(rule, call.method) and _holds_for(rule, params, key_params) for rule in rules
    )


def _names_method(rule: Mapping[str, object], method: str) -> bool:
    return method in rule or _METHODS.isdisjoint(rule)


def _holds_for(
    rule: Mapping[str, object], params: Mapping[str, object], key_params: Mapping[str, object]
) -> bool:
    return all(
        _holds(operator, params.get(name), _filled(bound, key_params))
        for name, bounds in _mapping(rule.get("constraints")).items()
        for operator, bound in _mapping(bounds).items()
    )


def _problem_of_rule(rule: object) -> str | None:
    if not isinstance(rule, dict) or not set(rule) <= {"constraints", *_METHODS}:
        return f'an endpoint must be an object with nothing but "constraints" and {_METHOD_NAMES}'
    if any(rule[method] != {} for method in _METHODS & set(rule)):
        return "a method must be an empty object"
    constraints = rule.get("constraints", {})
    if not isinstance(constraints, dict):
        return '"constraints" must be an object of parameters'
    for bounds in constraints.values():
        if not isinstance(bounds, dict) or not set(bounds) <= set(_OPERATORS):
            return f"a parameter's constraints are an object of {', '.join(_OPERATORS)}"
        if not finite(bounds):
            return "a constraint's value must be JSON: neither NaN nor Infinity"
    return None


def _holds(operator: str, value: object, bound: object) -> bool:
    if bound is None:  # a name that `key_params` does not have
        return False
    if operator == "eq":
        return type(value) is type(bound) and value == bound
    if not _is_number(value) or not _is_number(bound):
        return False
    return value <= bound if operator == "lte" else value >= bound


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _filled(bound: object, key_params: Mapping[str, object]) -> object:
    if isinstance(bound, str) and bound.startswith("$"):
        return key_params.get(bound[1:])
    return bound


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}
