"""The control API turns the same switches as a test does, all or none, for the account alone."""

from dataclasses import asdict

import httpx
import pytest

from sandbox.console import Console
from sandbox.control import PATH
from sandbox.faults import FAULTS, Switches
from tests.sandbox.support import KEYS, client_of, make_key


def test_what_is_switched(console: Console, client: httpx.Client) -> None:
    """`GET` shows every switch, and `PUT` changes those it names and shows all."""
    assert client.get(PATH).json() == asdict(Switches())
    answer = client.put(PATH, json={"shape": "wrapped", "min_interval": 1})
    assert (
        answer.json()
        == asdict(Switches(shape="wrapped", min_interval=1.0))
        == asdict(console.switches)
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_can_be_switched_off_again(client: httpx.Client, fault: str) -> None:
    """A fault is one of the API alone: the control API goes on answering."""
    client.put(PATH, json={"slow_seconds": 0.01})
    assert client.put(PATH, json={"fault": fault}).json()["fault"] == fault
    assert client.put(PATH, json={"fault": None}).json()["fault"] is None
    assert client.get(KEYS).json() == []


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"fault": "outtage"}, "outage, slow"),
        ({"falt": "outage"}, "unknown falt; there are shape"),
        ({"etag": True, "shape": "tree"}, "shape"),
        ({"etag": True, "min_interval": "soon"}, "min_interval"),
        ([], "an object"),
    ],
)
def test_what_cannot_be_switched(
    console: Console, client: httpx.Client, body: object, named: str
) -> None:
    """A wrong switch or value is 400 with the right ones, and nothing is switched."""
    answer = client.put(PATH, json=body)
    assert answer.status_code == 400
    assert named in answer.json()["msg"]
    assert console.switches == Switches()


@pytest.mark.parametrize("name", ["min_interval", "slow_seconds"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "-1", "1e999"])
def test_seconds_that_never_pass(
    console: Console, client: httpx.Client, name: str, value: str
) -> None:
    """A time that is no number, without end or negative is 400, and nothing is switched."""
    answer = client.put(PATH, content=f'{{"{name}": {value}}}'.encode())
    assert (answer.status_code, answer.json()["msg"].split(":")[0]) == (400, name)
    assert console.switches == Switches()


def test_who_may_switch(console: Console) -> None:
    """A bad key is refused as everywhere, and one that may not do everything is 403."""
    for api_key, status in (("wrong", 404), (make_key(console, "user_read", "user_write"), 403)):
        with client_of(console, api_key) as client:
            assert client.get(PATH).status_code == status
            assert client.put(PATH, json={"fault": "outage"}).status_code == status
    assert console.fault is None


def test_it_is_no_part_of_the_api(console: Console, client: httpx.Client) -> None:
    """Neither the note of requests nor the API's document knows it."""
    client.get(PATH)
    assert console.requests == []
    assert PATH not in client.get("/api/v0/openapi.json").json()["paths"]
