"""Input schemas as clients receive them: small, self-contained, accepted by the APIs of all models.

An API that refuses one schema refuses all tools of the request. So every schema follows the rules
of all APIs: an array declares its items, and `anyOf` is the only keyword of its schema (Vertex AI).
"""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

JsonSchema = dict[str, Any]

# Checked when a call comes in; where a model has to know them, the description says so in words.
_NOISE = {"title", "pattern", "maxLength", "minLength", "minItems", "maxItems", "writeOnly"}


def input_schema(model: type[BaseModel], first: Sequence[str] = ()) -> JsonSchema:
    """Return the model's JSON Schema: definitions inlined, titles and null variants left out.

    The properties named in `first` come first, in that order.
    """
    schema = model.model_json_schema(schema_generator=GenerateJsonSchema)
    definitions = schema.pop("$defs", {})
    plain: JsonSchema = _plain(schema, definitions)
    properties = plain.get("properties", {})
    plain["properties"] = {
        name: _without_absence(properties[name]) for name in dict.fromkeys([*first, *properties])
    }
    plain.pop("description", None)
    plain.pop("additionalProperties", None)  # 300 tokens over all tools; the refusal says as much
    return plain


def description_of(schema: JsonSchema) -> str:
    """Return a property's description, which stands beside its type or in one of its variants."""
    candidates = (schema, *schema.get("anyOf", []))
    return next((s["description"] for s in candidates if "description" in s), "")


def _plain(node: Any, definitions: JsonSchema) -> Any:
    """Replace references by their definitions and drop the keywords of _NOISE, recursively.

    A property may have the name of such a keyword ("title"): `properties` keeps all its names.
    """
    if isinstance(node, list):
        return [_plain(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if reference := node.get("$ref"):
        target = definitions[reference.rsplit("/", 1)[-1]]
        target = {k: v for k, v in target.items() if k != "description"}  # the class's docstring
        return _plain({**target, **{k: v for k, v in node.items() if k != "$ref"}}, definitions)
    return {
        key: {name: _plain(schema, definitions) for name, schema in value.items()}
        if key == "properties"
        else _plain(value, definitions)
        for key, value in node.items()
        if key not in _NOISE or not isinstance(value, str | int)
    }


def _without_absence(schema: JsonSchema) -> JsonSchema:
    """Drop what leaving the argument out means anyway: null as a variant, null or false by default.

    Clients leave it out instead.
    """
    default = schema.get("default", ...)
    if default is None or default is False:
        schema = {key: value for key, value in schema.items() if key != "default"}
    if "anyOf" not in schema:
        return schema
    variants = [variant for variant in schema["anyOf"] if variant != {"type": "null"}]
    first = {**variants[0], **{key: value for key, value in schema.items() if key != "anyOf"}}
    return first if len(variants) == 1 else {"anyOf": [first, *variants[1:]]}
