"""The admin API answers any request as its own description says (schemathesis)."""

import threading
from collections.abc import Iterator

import anyio
import httpx2 as httpx
import pytest
from hypothesis import HealthCheck, given, settings

from pvemcp_server.access import open_access
from pvemcp_server.app import create_app, open_services
from pvemcp_server.config import Config
from pvemcp_server.http.server import http_server
from pvemcp_server.settings import Settings
from pvemcp_server.store import open_store

from .description import description

# These contact hosts named in the request: generated names could be real hosts
CONTACTS_HOSTS = ["/clusters", "/clusters/try", "/clusters/fingerprints"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the application on a loopback port, in a thread with its own event loop."""
    ready, stop, urls = threading.Event(), threading.Event(), []

    async def serve() -> None:
        config = Config(state_dir=tmp_path_factory.mktemp("state"), port=0, log_level="error")
        async with open_store(config) as store, open_access(store) as access:
            await access.admins.create("ada", "correct horse battery", must_change=False)
            state = _State(config, store, access)
            async with open_services(state) as services, anyio.create_task_group() as tasks:
                app = create_app(services)
                server = http_server(app.asgi, config, app.endpoint.drain)
                tasks.start_soon(server.serve)
                with anyio.fail_after(20):
                    while not server.started:  # noqa: ASYNC110 - there is no event for it
                        await anyio.sleep(0.02)
                host, port = server.addresses[0]
                urls.append(f"http://{host}:{port}")
                ready.set()
                await anyio.to_thread.run_sync(stop.wait)
                server.stop()

    thread = threading.Thread(target=anyio.run, args=(serve,))
    thread.start()
    assert ready.wait(60)
    yield urls[0]
    stop.set()
    thread.join(30)


class _State:
    def __init__(self, config, store, access) -> None:
        self.config, self.store, self.access = config, store, access
        self.settings = Settings(store)


@pytest.fixture(scope="module")
def session(served: str) -> dict[str, dict[str, str]]:
    """Return the headers and cookies of a signed-in program."""
    credentials = {"name": "ada", "password": "correct horse battery"}
    answer = httpx.post(f"{served}/admin/api/session", json=credentials, timeout=60)
    headers = {"X-CSRF-Token": answer.json()["csrf"]}
    return {"headers": headers, "cookies": dict(answer.cookies)}


@pytest.mark.slow
def test_every_answer_conforms_to_the_description(served, session):
    # imported here: the other workers only collect this module
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks as openapi_checks

    checks = [
        not_a_server_error,
        openapi_checks.status_code_conformance,
        openapi_checks.content_type_conformance,
        openapi_checks.response_schema_conformance,
    ]
    schema = schemathesis.openapi.from_dict(description())
    schema = schema.exclude(path=CONTACTS_HOSTS, method="POST").exclude(path="/session")
    failures = {}
    for operation in (result.ok() for result in schema.get_all_operations()):

        @settings(max_examples=8, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def send(case) -> None:
            answer = case.call(base_url=f"{served}/admin/api", timeout=30, **session)
            case.validate_response(answer, checks=checks)

        try:
            send()
        except Exception as failure:  # noqa: BLE001 - each operation is tried
            failures[operation.label] = failure
    assert failures == {}
