"""The admin REST API: routes derived from the administrative operations."""

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Annotated, Any, Final

from fastapi import APIRouter, FastAPI, Query, status

from pvemcp_server import __version__
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.operation import Operation, model_of, operations
from pvemcp_server.pipeline.pipeline import Pipeline
from pvemcp_server.web.api import audit, bridge, session
from pvemcp_server.web.api.answers import REFUSALS, requirements
from pvemcp_server.web.api.json_body import JsonRoute
from pvemcp_server.web.session import PipelineOf, Reading, permitted

DESCRIPTION: Final = """\
Everything that the admin pages offer. `POST /session` signs in and answers with the session's
token; requests other than GET carry it as `X-CSRF-Token`, beside the cookie. A program may instead
present a service token as `Authorization: Bearer pvemcp_admin_…`. `x-roles` and `x-scope` say which
administrator roles permit an operation, and which scope of a service token.
"""


def create_api() -> FastAPI:
    """Return the application; the admin site mounts it and sets its services."""
    api = FastAPI(
        title="pvemcp administration",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,  # the route below needs a session
        redirect_slashes=False,
    )
    api.include_router(session.router, responses=REFUSALS)
    by_tag: dict[str, APIRouter] = {}
    for operation in operations().values():
        if operation.route:
            router = by_tag.setdefault(
                operation.tag, APIRouter(tags=[operation.tag], route_class=JsonRoute)
            )
            _add_route(router, operation)
    by_tag["Bridge"].include_router(bridge.router)
    by_tag["Audit"].include_router(audit.router)
    for router in by_tag.values():
        api.include_router(router, responses=REFUSALS)

    @api.get("/openapi.json", include_in_schema=False)
    async def description(_: Reading) -> dict[str, Any]:
        return api.openapi()

    return api


def _add_route(router: APIRouter, operation: Operation) -> None:
    route = operation.route
    assert route  # noqa: S101 - the caller checks it
    done = status.HTTP_204_NO_CONTENT if operation.answer is None else status.HTTP_200_OK
    router.add_api_route(
        route.path,
        _endpoint(operation, route.method),
        methods=[route.method],
        status_code=status.HTTP_201_CREATED if route.created else done,
        openapi_extra=requirements(operation),
    )


def _endpoint(operation: Operation, method: str) -> Callable[..., Any]:
    """Return a function with the operation's signature, as FastAPI reads it.

    The context requires a session whose role permits the operation, and for any method but GET also
    its CSRF token. A model is the body, or the query of a GET.
    """

    async def endpoint(**values: Any) -> Any:
        return await operation.run(**values)

    def for_fastapi(parameter: Parameter) -> Parameter:
        annotation = parameter.annotation
        if annotation is AdminContext:
            annotation = Annotated[AdminContext, permitted(operation)]
        elif annotation is Pipeline:
            annotation = PipelineOf
        elif method == "GET" and model_of(parameter):
            annotation = Annotated[annotation, Query()]
        return parameter.replace(annotation=annotation, kind=Parameter.KEYWORD_ONLY)

    parameters = [for_fastapi(parameter) for parameter in operation.parameters.values()]
    endpoint.__name__ = operation.run.__name__
    endpoint.__doc__ = operation.description
    endpoint.__signature__ = Signature(parameters, return_annotation=operation.answer)  # type: ignore[attr-defined]  # functions have it
    return endpoint
