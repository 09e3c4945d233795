"""The console as one ASGI application: the API, the control API and the Keys page."""

from fastapi import FastAPI

from sandbox.api import add_api
from sandbox.control import control_router
from sandbox.page.routes import page_router
from sandbox.world import World


def create_app(world: World) -> FastAPI:
    """The application that serves a world."""
    app = FastAPI(
        title="Console",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        strict_content_type=False,
    )
    app.state.world = world
    add_api(app, world)
    app.include_router(control_router(world), include_in_schema=False)
    app.include_router(page_router(world), include_in_schema=False)
    return app
