"""The API's own description, `/openapi.json`: what FastAPI knows of it, and what it cannot know."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from nearline.records import Event, Item
from serving.access import needed_role
from serving.problems import MEDIA_TYPE, OF_KEYS
from serving.schema import MOST_ROWS

_KEY = "key"
_MODELS = "#/components/schemas/{model}"


def one_or_many(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """Describes a body that holds one `model` or a list of them, which is judged row by row."""
    one = {"$ref": _MODELS.format(model=model.__name__)}
    many = {"type": "array", "items": one, "minItems": 1, "maxItems": MOST_ROWS}
    schema = {"oneOf": [one, many], "examples": [example]}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def described(app: FastAPI) -> dict[str, Any]:
    """The app's description in OpenAPI.

    Each operation names the role that it needs where keys are asked for; errors have the media type
    that they have.
    """
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        components = schema["components"]
        components["securitySchemes"] = {_KEY: {"type": "http", "scheme": "bearer"}}
        for model in (Event, Item):
            components["schemas"][model.__name__] = model.model_json_schema(ref_template=_MODELS)
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                _complete(operation, method.upper(), path)
        app.openapi_schema = schema
    return app.openapi_schema


def _complete(operation: dict[str, Any], method: str, path: str) -> None:
    role = needed_role(method, path)
    operation["security"] = [] if role is None else [{_KEY: [role]}, {}]
    for status in OF_KEYS if role is None else ():
        del operation["responses"][str(status)]
    for status, response in operation["responses"].items():
        content = response.get("content", {})
        if int(status) >= 400 and "application/json" in content:
            content[MEDIA_TYPE] = content.pop("application/json")
