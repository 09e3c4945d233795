"""Whose key it is, and the one call that the provider's client makes without a key."""

from fastapi import APIRouter
from starlette.responses import Response

from sandbox.api.answers import Json, documented
from sandbox.api.gate import GatedRoute, named, needs
from sandbox.api.models import GpuNames, User
from sandbox.api.ssh import TheWorld, acting_account

router = APIRouter(tags=["Accounts"], route_class=GatedRoute, generate_unique_id_function=named)
public = APIRouter(tags=["Search"], route_class=GatedRoute, generate_unique_id_function=named)


@router.get(
    "/users/current/",
    response_model=User,
    responses=documented(),
    openapi_extra=needs("user_read", "api.user.show"),
)
async def show_user(world: TheWorld) -> Response:
    """The account of the key."""
    account = acting_account(world)
    user = {
        "id": account.user_id,
        "username": account.login,
        "email": f"{account.login}@example.com",
        "balance": 0.0,
        "credit": 0.0,
        "is_team": account.is_team,
    }
    return Json(user)


@public.get("/gpu_names/unique/", response_model=GpuNames, responses={429: documented()[429]})
async def gpu_names() -> Response:
    """Names that the provider's client completes command lines with; nothing is for rent here."""
    return Json({"gpu_names": ["RTX 4090", "H100 SXM"]})
