"""Input schemas as clients see them: small, self-contained, accepted by the APIs of all models.

One refused schema makes an API refuse every tool of the request, so the rules of all of them hold
for each: an array says what its items are, and `anyOf` has no neighbour (Vertex AI).
"""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

JsonSchema = dict[str, Any]

# Checked when a call comes in; a description says in words what a model has to know of it.
_NOISE = {"title", "pattern", "maxLength", "minLength", "minItems", "maxItems"}


def input_schema(model: type[BaseModel], first: Sequence[str] = ()) -> JsonSchema:
    """The model's JSON Schema: definitions inlined, titles and null variants left out.

    The properties named in `first` come first, in that order.
    """
    schema = model.model_json_schema(schema_generator=GenerateJsonSchema)
    definitions = schema.pop("$defs", {})
    plain: JsonSchema = _plain(schema, definitions)
    told = plain.get("properties", {})
    plain["properties"] = {
        name: _without_null(told[name]) for name in dict.fromkeys([*first, *told])
    }
    plain.pop("description", None)
    return plain


def description_of(schema: JsonSchema) -> str:
    """Return what the schema says of a property: beside its type, or in one of its variants."""
    variants = schema.get("anyOf", [])
    return next((one["description"] for one in (schema, *variants) if "description" in one), "")


def _plain(node: Any, definitions: JsonSchema) -> Any:
    if isinstance(node, list):
        return [_plain(one, definitions) for one in node]
    if not isinstance(node, dict):
        return node
    if reference := node.get("$ref"):
        target = definitions[reference.rsplit("/", 1)[-1]]
        return _plain({**target, **{k: v for k, v in node.items() if k != "$ref"}}, definitions)
    return {
        key: {name: _plain(one, definitions) for name, one in value.items()}
        if key == "properties"
        else _plain(value, definitions)
        for key, value in node.items()
        if key not in _NOISE or not isinstance(value, str | int)
    }


def _without_null(schema: JsonSchema) -> JsonSchema:
    """An optional argument is left out, not null: `null` is accepted, but need not be told."""
    if schema.get("default", ...) is None:
        schema = {key: value for key, value in schema.items() if key != "default"}
    if "anyOf" not in schema:
        return schema
    variants = [one for one in schema["anyOf"] if one != {"type": "null"}]
    first = {**variants[0], **{key: value for key, value in schema.items() if key != "anyOf"}}
    return first if len(variants) == 1 else {"anyOf": [first, *variants[1:]]}
