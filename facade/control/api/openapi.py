"""The OpenAPI 3.1 document, generated from the endpoints that serve.

Guarantees: a route, parameter, body or answer is described here exactly when it is validated by the same
pydantic model; nothing is written twice. Deterministic, so that a checked-in copy can be
compared.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from facade import __version__
from facade.control.api.endpoint import API_PREFIX, Endpoint
from facade.control.api.schemas.base import Failure, Nothing

_REF = "#/components/schemas/{model}"
_FAILURES = {
    "400": "malformed",
    "401": "no valid API key",
    "403": "the key lacks a permission, or a fleet",
    "404": "no such thing",
    "409": "it contradicts what exists",
    "413": "the body is too large",
    "422": "refused by the registry",
    "429": "too many failed keys",
    "500": "a defect of the facade; its log says more",
    "502": "the registry cannot be reached",
    "503": "not possible just now",
    "504": "the registry did not answer in time",
}
_Key = tuple[type[BaseModel], JsonSchemaMode]
_References = Mapping[Any, dict[str, Any]]
"""(model, mode) → `{"$ref": …}`."""


def document(endpoints: Sequence[Endpoint[Any, Any, Any]]) -> dict[str, Any]:
    """The document for `endpoints`."""
    keys: list[_Key] = [(Failure, "serialization")]
    for endpoint in endpoints:
        keys.append((endpoint.answer, "serialization"))
        if endpoint.has_body:
            keys.append((endpoint.body, "validation"))
    references, definitions = models_json_schema(
        list(dict.fromkeys(keys)), ref_template=_REF, title="Facade"
    )
    schemas = definitions["$defs"]
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        operation = _operation(endpoint, references)
        paths.setdefault(API_PREFIX + endpoint.path, {})[endpoint.method.lower()] = operation
    paths[f"{API_PREFIX}/openapi.json"] = {
        "get": {
            "operationId": "get_openapi_json",
            "summary": "This document",
            "responses": {"200": {"description": "OpenAPI 3.1"}, **_failures(references)},
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Facade operator API", "version": __version__},
        "security": [{"apiKey": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint[Any, Any, Any], references: _References) -> dict[str, Any]:
    content: dict[str, Any] = {
        "application/json": {"schema": references[endpoint.answer, "serialization"]}
    }
    if endpoint.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    operation: dict[str, Any] = {
        "operationId": _operation_id(endpoint),
        "summary": endpoint.summary,
        "parameters": [*_path_parameters(endpoint.path), *_query_parameters(endpoint.query)],
        "responses": {
            str(endpoint.status): {
                "description": (endpoint.answer.__doc__ or "").strip(),
                "content": content,
            },
            **_failures(references),
        },
    }
    if endpoint.permission is not None:
        operation["description"] = f"Needs the permission `{endpoint.permission}`."
    if endpoint.has_body:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": references[endpoint.body, "validation"]}},
        }
    return operation


def _operation_id(endpoint: Endpoint[Any, Any, Any]) -> str:
    return "_".join([endpoint.method.lower(), *re.findall(r"[a-z]+", endpoint.path)])


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]


def _query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    if model is Nothing:
        return []
    schema = model.model_json_schema(ref_template=_REF)
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _without_null(value)}
        for name, value in schema["properties"].items()
    ]


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A query has no null: an optional parameter is there or not."""
    kept = {key: value for key, value in schema.items() if key != "anyOf"}
    if kept.get("default", "") is None:
        del kept["default"]
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    return (
        {**kept, **kinds[0]} if len(kinds) == 1 else {**kept, **({"anyOf": kinds} if kinds else {})}
    )


def _failures(references: _References) -> dict[str, Any]:
    schema = references[Failure, "serialization"]
    return {
        status: {"description": text, "content": {"application/json": {"schema": schema}}}
        for status, text in _FAILURES.items()
    }
