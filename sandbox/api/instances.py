"""The SSH keys of single instances: list, attach, detach."""

import json

from fastapi import APIRouter
from starlette.responses import Response

from sandbox.api.answers import Json, documented, failure
from sandbox.api.gate import GatedRoute, named, needs
from sandbox.api.models import AttachedKeys, SshKeyText, SuccessMessage
from sandbox.api.paths import Number
from sandbox.api.ssh import TheWorld
from sandbox.platform import NotAttached, UnknownInstance

router = APIRouter(
    prefix="/instances",
    tags=["Instances"],
    route_class=GatedRoute,
    generate_unique_id_function=named,
)


@router.get(
    "/{id:number}/ssh/",
    response_model=AttachedKeys,
    responses=documented(),
    openapi_extra=needs("instance_read", "api.instance.ssh.show"),
)
async def show_instance_ssh_keys(id: Number, world: TheWorld) -> Response:
    """The keys that the platform wrote to an instance, as JSON text inside JSON."""
    try:
        attached = world.platform.attached(id)
    except UnknownInstance:
        return _no_such_instance()
    entries = [
        {"id": key.key_id, "public_key": key.text, "created_at": key.created_at} for key in attached
    ]
    return Json({"success": True, "ssh_keys": json.dumps(entries)})


@router.post(
    "/{id:number}/ssh/",
    response_model=SuccessMessage,
    responses=documented(400),
    openapi_extra=needs("instance_write", "api.instance.ssh.attach"),
)
async def attach_ssh(id: Number, sent: SshKeyText, world: TheWorld) -> Response:
    """Give one instance a key; the platform writes the instance's whole file anew."""
    try:
        world.platform.attach(id, sent.ssh_key)
    except UnknownInstance:
        return _no_such_instance()
    return Json({"success": True, "msg": "SSH key attached successfully"})


@router.delete(
    "/{id:number}/ssh/{ssh_key_id:number}/",
    response_model=SuccessMessage,
    responses=documented(),
    openapi_extra=needs("instance_write", "api.instance.ssh.detach"),
)
async def detach_ssh(id: Number, ssh_key_id: Number, world: TheWorld) -> Response:
    """Take a key from one instance; the platform writes the instance's whole file anew."""
    try:
        world.platform.detach(id, ssh_key_id)
    except UnknownInstance:
        return _no_such_instance()
    except NotAttached:
        return failure(404, "no_such_ssh_key", "SSH key not found.")
    return Json({"success": True, "msg": "SSH key removed from instance."})


def _no_such_instance() -> Json:
    return failure(404, "no_such_instance", "Instance not found.")
