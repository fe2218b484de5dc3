"""The OpenAPI description, as people and generators of clients read it.

`openapi.txt` beside this file has one line per route. After a change that is meant, `python -m tests.api.test_openapi` writes it anew.
"""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mixpeek_dagster.api import create_app
from mixpeek_dagster.api.description import EXAMPLES, TAGS
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.settings import Settings

FILE = Path(__file__).with_name("openapi.txt")
USUAL = {"400", "401", "403", "404", "405", "409", "413", "422", "429", "500", "503"}
NAMESPACE = {"namespace", "x-namespace"}
PAGED = {"after", "cursor", "limit", "next_cursor", "offset", "page", "page_size"}


def description() -> dict[str, Any]:
    nowhere = Settings(home=Path("/nowhere"), catalog_url="sqlite:////nowhere/catalog.db")
    return dict(create_app(Warehouse(settings=nowhere)).openapi())


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return description()


def lines(described: dict[str, Any]) -> list[str]:
    """One line per route, sorted by path.

    `POST /v1/buckets in namespace BucketCreate → 200 BucketAnswer · buckets_create`. `open` needs no key; `paged` takes the usual
    paging parameters, others are in parentheses; a model with `?` may be left out; statuses are named where they are not the usual.
    """
    found = []
    for path, operations in sorted(described["paths"].items()):
        for method, operation in sorted(operations.items()):
            names = {one["name"] for one in operation.get("parameters", ()) if one["in"] != "path"}
            place = "in namespace" if names >= NAMESPACE else "" if "security" in operation else "open"
            own = sorted(names - NAMESPACE - (PAGED if names >= PAGED else set()))
            body = operation.get("requestBody")
            asked = _model(body) + ("" if body.get("required") else "?") if body else ""
            answers = [f"{status} {_model(one)}".strip() for status, one in operation["responses"].items() if status[0] == "2"]
            failures = {status for status in operation["responses"] if status[0] != "2"}
            unusual = sorted(failures ^ (USUAL if "security" in operation else USUAL - {"401", "429"}))
            said = [method.upper(), path, place, "paged" if names >= PAGED else "", f"({', '.join(own)})" if own else "", asked]
            found.append(" ".join(filter(None, [*said, "→", " | ".join(answers), *unusual, "·", operation["operationId"]])))
    return found


def _model(part: dict[str, Any]) -> str:
    """The name of the model of a body, or its content types."""
    content = part.get("content", {})
    return _name(content["application/json"]["schema"]) if "application/json" in content else " ".join(content)


def _name(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(sorted({_name(one) for one in schema["anyOf"]} - {"null"}))
    if schema.get("type") == "array":
        return f"[{_name(schema['items'])}]"
    return str(schema.get("type", "anything"))


def test_the_routes_are_those_that_were_reviewed(described: dict[str, Any]) -> None:
    assert lines(described) == FILE.read_text().splitlines(), "if it is meant: python -m tests.api.test_openapi"


def test_every_operation_says_what_it_is(described: dict[str, Any]) -> None:
    operations = [one for methods in described["paths"].values() for one in methods.values()]
    ids = [one["operationId"] for one in operations]
    assert len(set(ids)) == len(ids)
    known = {tag["name"] for tag in TAGS}
    for one in operations:
        assert one["operationId"].isidentifier() and len(one["operationId"]) < 60, one["operationId"]
        assert one["description"] and 3 < len(one["summary"]) < 140 and not one["summary"].endswith("."), one["summary"]
        assert set(one["tags"]) <= known, one["tags"]
        for status, answer in one["responses"].items():
            if status[0] in "45":
                schema = answer["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorResponse"}, (one["operationId"], status)
    assert {tag for one in operations for tag in one["tags"]} == known


def test_every_model_says_what_it_is(described: dict[str, Any]) -> None:
    models = described["components"]["schemas"]
    assert not [name for name, model in models.items() if not model.get("description") and "enum" not in model]
    assert not [name for name in models if name.startswith("mixpeek_dagster")], "two models of one name: rename one"


def test_the_examples_of_the_seed_pages_work(described: dict[str, Any], client: TestClient) -> None:
    made: dict[str, str] = {}
    for (method, path), body in EXAMPLES.items():
        assert described["paths"][path][method]["requestBody"]["content"]["application/json"]["example"] == body
        if "obj_abc" in str(body):
            body = {"object_ids": [made["object_id"]]}
        if "trigger" in path:
            source = {"type": "bucket", "bucket_ids": [made["bucket_id"]]}
            extractor = {"feature_extractor_name": "passthrough_extractor", "version": "v1"}
            one = {"collection_name": "copies", "source": source, "feature_extractor": extractor}
            made |= client.post("/v1/collections", json=one).json()
        url = path.replace("{bucket_identifier}", made.get("bucket_id", "")).replace(
            "{collection_identifier}", made.get("collection_id", "")
        )
        response = client.request(method, url, json=body)
        assert response.status_code in (200, 202), f"{path}: {response.text}"
        made |= {name: value for name, value in response.json().items() if isinstance(value, str)}
        client.headers["X-Namespace"] = made["namespace_id"]


if __name__ == "__main__":
    FILE.write_text("\n".join(lines(description())) + "\n")
