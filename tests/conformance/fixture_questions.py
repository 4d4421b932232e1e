"""Fixture tools that ask the client: by requests of their own, and by results (2026-07-28)."""

import json
from typing import Any

import mcp_types as types
from fixture_tools import fixture, said

TEXT = {"type": "string"}


def form(message: str, **properties: dict[str, Any]) -> types.ElicitRequest:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    params = types.ElicitRequestFormParams(message=message, requested_schema=schema)
    return types.ElicitRequest(params=params)


def sampling(text: str, tokens: int) -> types.CreateMessageRequest:
    message = types.SamplingMessage(role="user", content=types.TextContent(text=text))
    params = types.CreateMessageRequestParams(messages=[message], max_tokens=tokens)
    return types.CreateMessageRequest(params=params)


def ask(state: str | None = None, **requests: Any) -> types.InputRequiredResult:
    return types.InputRequiredResult(input_requests=requests, request_state=state)


def answers(params, **kinds: type) -> dict[str, Any] | None:
    """Return the answers by name; None unless all are there and of the right type."""
    given = params.input_responses or {}
    if all(isinstance(given.get(name), kind) for name, kind in kinds.items()):
        return {name: given[name] for name in kinds}
    return None


async def elicit(ctx, message: str, properties: dict[str, Any], required: list[str] | None = None):
    schema = {"type": "object", "properties": properties, "required": required or []}
    return await ctx.session.elicit_form(message, schema, ctx.request_id)


def as_result(prefix: str, result: types.ElicitResult) -> types.CallToolResult:
    return said(f"{prefix}: action={result.action}, content={json.dumps(result.content)}")


@fixture("Asks the client's model", {"prompt": TEXT})
async def test_sampling(ctx, params):
    message = types.SamplingMessage(
        role="user", content=types.TextContent(text=params.arguments["prompt"])
    )
    result = await ctx.session.create_message(
        [message], max_tokens=100, related_request_id=ctx.request_id
    )
    return said(f"LLM response: {result.content.text}")


@fixture("Asks the user", {"message": TEXT})
async def test_elicitation(ctx, params):
    fields = {
        "username": {"type": "string", "description": "User's response"},
        "email": {"type": "string", "description": "User's email address"},
    }
    result = await elicit(ctx, params.arguments["message"], fields, list(fields))
    return as_result("User response", result)


@fixture("Asks the user, with defaults")
async def test_elicitation_sep1034_defaults(ctx, params):
    fields = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"]}
        | {"default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
    return as_result("Elicitation completed", await elicit(ctx, "Fill in", fields))


def titled(*titles: str) -> list[dict[str, str]]:
    return [{"const": f"value{n}", "title": title} for n, title in enumerate(titles, 1)]


@fixture("Asks the user to choose")
async def test_elicitation_sep1330_enums(ctx, params):
    plain = ["option1", "option2", "option3"]
    fields = {
        "untitledSingle": {"type": "string", "enum": plain},
        "titledSingle": {"type": "string", "oneOf": titled("First", "Second", "Third")},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": plain}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled("First", "Second", "Third")}},
    }
    return as_result("Elicitation completed", await elicit(ctx, "Choose", fields))


@fixture("Asks for a name")
async def test_input_required_result_elicitation(ctx, params):
    found = answers(params, user_name=types.ElicitResult)
    content = found["user_name"].content if found else None
    if not content or "name" not in content:
        return ask(user_name=form("What is your name?", name=TEXT))
    return said(f"Hello, {content['name']}!")


@fixture("Asks the client's model")
async def test_input_required_result_sampling(ctx, params):
    found = answers(params, capital_question=types.CreateMessageResult)
    if found is None:
        return ask(capital_question=sampling("What is the capital of France?", 100))
    return said(found["capital_question"].content.text)


@fixture("Asks for roots")
async def test_input_required_result_list_roots(ctx, params):
    found = answers(params, client_roots=types.ListRootsResult)
    if found is None:
        return ask(client_roots=types.ListRootsRequest())
    return said(", ".join(str(root.uri) for root in found["client_roots"].roots))


@fixture("Asks, and remembers by state")
async def test_input_required_result_request_state(ctx, params):
    if answers(params, confirm=types.ElicitResult) is None or params.request_state != "asked":
        return ask("asked", confirm=form("Please confirm", ok={"type": "boolean"}))
    return said("state-ok")


@fixture("Asks, and checks its state")
async def test_input_required_result_tampered_state(ctx, params):
    return await test_input_required_result_request_state(ctx, params)


@fixture("Asks three things at once")
async def test_input_required_result_multiple_inputs(ctx, params):
    found = answers(
        params,
        user_name=types.ElicitResult,
        greeting=types.CreateMessageResult,
        client_roots=types.ListRootsResult,
    )
    if found is None:
        return ask(
            "three",
            user_name=form("What is your name?", name=TEXT),
            greeting=sampling("Generate a greeting", 50),
            client_roots=types.ListRootsRequest(),
        )
    return said("all answered")


@fixture("Asks twice")
async def test_input_required_result_multi_round(ctx, params):
    if params.request_state == "second" and answers(params, step2=types.ElicitResult):
        return said("both answered")
    if params.request_state == "first" and answers(params, step1=types.ElicitResult):
        return ask("second", step2=form("Step 2: What is your favorite color?", color=TEXT))
    return ask("first", step1=form("Step 1: What is your name?", name=TEXT))


@fixture("Asks only what the client can answer")
async def test_input_required_result_capabilities(ctx, params):
    can = ctx.session.client_capabilities
    requests: dict[str, Any] = {}
    if can.sampling is not None:
        requests["model"] = sampling("Say something", 50)
    if can.elicitation is not None:
        requests["user"] = form("Say something", text=TEXT)
    if params.input_responses or not requests:
        return said("answered")
    return ask(**requests)
