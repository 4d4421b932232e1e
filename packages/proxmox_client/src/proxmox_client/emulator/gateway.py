"""The API of one node: authentication, permissions, proxying, validation and the handler."""

import inspect
import logging
from typing import Any, Final
from urllib.parse import quote, unquote

import msgspec

from proxmox_client.emulator import parameters
from proxmox_client.emulator.access.checks import PermissionCheck
from proxmox_client.emulator.access.principal import Principal, Rights
from proxmox_client.emulator.auth import openid
from proxmox_client.emulator.backend import Backend
from proxmox_client.emulator.errors import (
    ApiError,
    BadParameters,
    Forbidden,
    MethodNotImplemented,
    Unauthorized,
)
from proxmox_client.emulator.faults import NO_FILE_SYSTEM
from proxmox_client.emulator.http.messages import Request, Response, empty
from proxmox_client.emulator.quorum import check_quorum
from proxmox_client.emulator.router import ApiRequest, Encoded, Reply, find_handler
from proxmox_client.emulator.state.node import Node
from proxmox_client.schema import Endpoint

LOG: Final = logging.getLogger(__name__)
ROOT_PATH: Final = "/api2/json"
METHODS: Final = frozenset({"GET", "POST", "PUT", "DELETE"})
UNAUTHORIZED_DELAY: Final = 3.0
"""Seconds before a failed sign-in is answered, as in pveproxy."""
ANONYMOUS: Final = Principal("anonymous@none")


class Gateway:
    """The handler of all HTTP requests that reach one node.

    The order is Proxmox's own: a request fails with 401 before 501 (no such endpoint), 501 before
    403, 403 before the errors of the proxy, and only the node that handles it validates the
    parameters (400). Faults are injected before and after.
    """

    def __init__(self, backend: Backend, node: Node) -> None:
        self._backend, self._node = backend, node

    async def answer(self, request: Request) -> Response:
        """Return the response to a request; never raises."""
        if request.method not in METHODS:
            return empty(501, f"method '{request.method}' not available")
        path = unquote(request.path)
        if path == openid.PAGE:
            return self._backend.openid.page(request.query)
        if not path.startswith(ROOT_PATH):
            return _outside_api(path)
        response = await self._answer(request, path.removeprefix(ROOT_PATH) or "/")
        return self._backend.faults.after_response(self._node.name, request.method, path, response)

    async def _answer(self, request: Request, path: str) -> Response:
        if "pmxcfs" in self._node.stopped:
            return empty(500, NO_FILE_SYSTEM)
        try:
            faulty = await self._backend.faults.before_request(
                self._node.name, request.method, path
            )
            return faulty or await self._dispatch(request, path)
        except Unauthorized as refusal:
            await self._backend.state.clock.sleep(UNAUTHORIZED_DELAY)
            if not refusal.with_body:
                return empty(401, refusal.reason)
            return failure(ApiError(refusal.reason, status=401))
        except ApiError as problem:
            return failure(problem)
        except Exception:
            # A bug of the emulator: log it, answer 500 and go on serving
            LOG.exception("%s %s could not be answered", request.method, path)
            return failure(ApiError("the emulator made a mistake: see its log"))

    async def _dispatch(self, request: Request, path: str) -> Response:
        match = self._backend.schema.find(request.method, quote(path))  # decoded once
        principal = self._authenticate(request, match[0] if match else None)
        if match is None:
            raise MethodNotImplemented(request.method, path)
        endpoint, path_values = match
        values = {**parameters.read(request), **path_values}
        rights = self._authorize(principal, endpoint, path, values)
        node = self._backend.proxy.target(endpoint, values, self._node)

        async def handle() -> Response:
            if endpoint.protected and "pvedaemon" in node.stopped:
                return empty(595, "Connection refused")
            if errors := endpoint.check(values):
                raise BadParameters(errors)
            api_request = ApiRequest(
                backend=self._backend,
                local_node=self._node if endpoint.path.endswith("/upload") else node,
                principal=principal,
                rights=rights,
                params=parameters.typed(endpoint, values),
                endpoint=endpoint,
                path=path,
                body=request.body,
                headers=request.headers,
            )
            if api_request.get("skiplock") and not principal.is_root:
                raise api_request.invalid(skiplock="Only root may use this option.")
            return await self._handle(endpoint, api_request)

        if node is self._node:
            return await handle()
        return await self._backend.proxy.send(node, request.method, path, handle)

    def _authenticate(self, request: Request, endpoint: Endpoint | None) -> Principal:
        if endpoint is not None and endpoint.permissions == "world":
            return ANONYMOUS
        is_upload = endpoint is not None and endpoint.path.endswith("/upload")
        return self._backend.authentication.authenticate(request, is_upload=is_upload)

    def _authorize(
        self, principal: Principal, endpoint: Endpoint, path: str, values: dict[str, Any]
    ) -> Rights:
        """Check the endpoint's permissions; return all rights of the principal."""
        if principal.token and not endpoint.allows_token:
            raise Forbidden(f"URI '{path}' not available with API token, need proper ticket.\n")
        rights = Rights(principal, self._backend.state)
        PermissionCheck(principal, rights, self._backend.state, values).require(endpoint)
        return rights

    async def _handle(self, endpoint: Endpoint, request: ApiRequest) -> Response:
        handler = find_handler(endpoint.method, endpoint.path)
        if handler is None:
            return self._index(endpoint, request.path)
        if endpoint.method != "GET" and endpoint.permissions != "world":
            check_quorum(self._backend.state, endpoint, request.params)
        data = handler(request)
        return success(await data if inspect.isawaitable(data) else data)

    def _index(self, endpoint: Endpoint, path: str) -> Response:
        """Return the names of the endpoints below a path, as Proxmox's directory indexes do."""
        names = self._backend.schema.children(endpoint.path) if endpoint.method == "GET" else []
        if not names:
            raise MethodNotImplemented(endpoint.method, path)
        key = "subdir" if endpoint.path.endswith("{vmid}") else "name"
        return success([{key: name} for name in names])


def success(data: Any) -> Response:
    """Return the response for a handler's data."""
    if isinstance(data, Response):
        return data
    if isinstance(data, Encoded):
        return Response(body=b'{"data":' + data.json + b"}")
    if isinstance(data, Reply):
        return Response(body=msgspec.json.encode({"data": data.data, **data.extra}))
    return Response(body=msgspec.json.encode({"data": data}))


def failure(problem: ApiError) -> Response:
    """Return the response for an error; its message is in the status line and in the body."""
    line_end = "" if problem.status == 501 else "\n"
    body: dict[str, Any] = {"data": None, "message": problem.message + line_end}
    if isinstance(problem, BadParameters):
        body["errors"] = problem.errors
    return Response(problem.status, problem.message, msgspec.json.encode(body))


def _outside_api(path: str) -> Response:
    """Answer a path outside the API; the web interface is not emulated."""
    if path == "/":
        page = b"<!DOCTYPE html><title>Proxmox VE emulator</title><p>The API is at /api2/json.</p>"
        return Response(body=page, content_type="text/html;charset=UTF-8")
    return empty(404, f"no such file '{path}'")
