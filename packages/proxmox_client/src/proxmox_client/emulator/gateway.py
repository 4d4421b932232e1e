"""From a request to a response: recognise, find, permit, send on, check, answer."""

import inspect
import logging
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import msgspec

from proxmox_client.emulator import parameters
from proxmox_client.emulator.access.caller import Caller, Rights
from proxmox_client.emulator.access.checks import PermissionCheck
from proxmox_client.emulator.errors import ApiError, BadParameters, Refused, SignInRefused
from proxmox_client.emulator.http.messages import Request, Response, empty
from proxmox_client.emulator.router import Call, Encoded, Reply, handler_of
from proxmox_client.emulator.state.node import Node
from proxmox_client.schema import Endpoint

if TYPE_CHECKING:
    from proxmox_client.emulator.cluster import Cluster

LOG: Final = logging.getLogger(__name__)
ROOT_PATH: Final = "/api2/json"
METHODS: Final = frozenset({"GET", "POST", "PUT", "DELETE"})
REFUSAL_DELAY: Final = 3.0
"""Seconds a refused sign-in waits for its answer."""
NOBODY: Final = Caller("nobody@none")


class Gateway:
    """Answers the requests that reach one node."""

    def __init__(self, cluster: "Cluster", node: Node) -> None:
        self._cluster, self._node = cluster, node

    async def answer(self, request: Request) -> Response:
        """The response to a request."""
        if request.method not in METHODS:
            return empty(501, f"method '{request.method}' not available")
        path = unquote(request.path)
        if not path.startswith(ROOT_PATH):
            return _outside(path)
        response = await self._or_refusal(request, path.removeprefix(ROOT_PATH) or "/")
        return self._cluster.faults.leave(self._node.name, request.method, path, response)

    async def _or_refusal(self, request: Request, path: str) -> Response:
        try:
            faulty = await self._cluster.faults.meet(self._node.name, request.method, path)
            return faulty or await self._answer(request, path)
        except SignInRefused as refusal:
            await self._cluster.state.clock.sleep(REFUSAL_DELAY)
            return _refused_sign_in(refusal)
        except ApiError as problem:
            return failure(problem)
        except Exception:
            # A mistake of the emulator's own: said aloud, and no reason to stop serving
            LOG.exception("%s %s could not be answered", request.method, path)
            return failure(ApiError("the emulator made a mistake: see its log"))

    async def _answer(self, request: Request, path: str) -> Response:
        found = self._cluster.schema.find(request.method, path)
        caller = self._caller(request, found[0] if found else None)
        if found is None:
            raise NotImplementedHere(request.method, path)
        endpoint, values = found
        given = {**parameters.read(request), **values}
        rights = self._permitted(caller, endpoint, path, given)
        node = self._cluster.proxy.target(endpoint, given, self._node)

        async def handled() -> Response:
            if errors := endpoint.check(given):
                raise BadParameters(errors)
            call = Call(
                cluster=self._cluster,
                here=self._node if endpoint.path.endswith("/upload") else node,
                caller=caller,
                rights=rights,
                params=parameters.typed(endpoint, given),
                endpoint=endpoint,
                path=path,
                body=request.body,
                headers=request.headers,
            )
            return await self._handle(endpoint, call)

        if node is self._node:
            return await handled()
        return await self._cluster.proxy.send(node, request.method, path, handled())

    def _permitted(
        self, caller: Caller, endpoint: Endpoint, path: str, given: dict[str, Any]
    ) -> Rights:
        """What the caller may do, once it is clear that they may do this."""
        if caller.token and not endpoint.allows_token:
            raise Refused(f"URI '{path}' not available with API token, need proper ticket.\n")
        rights = Rights(caller, self._cluster.state)
        PermissionCheck(caller, rights, self._cluster.state, given).require(endpoint)
        return rights

    def _caller(self, request: Request, endpoint: Endpoint | None) -> Caller:
        if endpoint is not None and endpoint.permissions == "world":
            return NOBODY
        is_upload = endpoint is not None and endpoint.path.endswith("/upload")
        return self._cluster.authentication.caller(request, is_upload=is_upload)

    async def _handle(self, endpoint: Endpoint, call: Call) -> Response:
        handler = handler_of(endpoint.method, endpoint.path)
        if handler is None:
            return _index(self._cluster, endpoint, call.path)
        if endpoint.method != "GET" and endpoint.permissions != "world":
            self._require_quorum()
        data = handler(call)
        return success(await data if inspect.isawaitable(data) else data)

    def _require_quorum(self) -> None:
        if not self._cluster.state.quorate:
            raise ApiError("cluster not ready - no quorum?")


class NotImplementedHere(ApiError):
    """501: no such method of no such path."""

    def __init__(self, method: str, path: str) -> None:
        super().__init__(f"Method '{method} {path}' not implemented", status=501)


def success(data: Any) -> Response:
    """The envelope of data."""
    if isinstance(data, Encoded):
        return Response(body=b'{"data":' + data.json + b"}")
    if isinstance(data, Reply):
        return Response(body=msgspec.json.encode({"data": data.data, **data.beside}))
    return Response(body=msgspec.json.encode({"data": data}))


def failure(problem: ApiError) -> Response:
    """The envelope of a problem; its message is the status line's too."""
    ends = "" if problem.status == 501 else "\n"
    body: dict[str, Any] = {"data": None, "message": problem.message + ends}
    if isinstance(problem, BadParameters):
        body["errors"] = problem.errors
    return Response(problem.status, problem.message, msgspec.json.encode(body))


def _refused_sign_in(refusal: SignInRefused) -> Response:
    if not refusal.with_body:
        return empty(401, refusal.reason)
    return failure(ApiError(refusal.reason, status=401))


def _index(cluster: "Cluster", endpoint: Endpoint, path: str) -> Response:
    """The names below a path, which is what many endpoints are for."""
    names = cluster.schema.children(endpoint.path) if endpoint.method == "GET" else []
    if not names:
        raise NotImplementedHere(endpoint.method, path)
    key = "subdir" if endpoint.path.endswith("{vmid}") else "name"
    return success([{key: name} for name in names])


def _outside(path: str) -> Response:
    """What is not the API: the web interface is not emulated."""
    if path == "/":
        page = b"<!DOCTYPE html><title>Proxmox VE emulator</title><p>The API is at /api2/json.</p>"
        return Response(body=page, content_type="text/html;charset=UTF-8")
    return empty(404, f"no such file '{path}'")
