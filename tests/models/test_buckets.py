"""Bucket schemas: what objects may and must have."""

from typing import Any

import pytest
from pydantic import ValidationError

from mixpeek_dagster.errors import SchemaViolation
from mixpeek_dagster.models.buckets import BucketCreate, BucketSchema, FieldType, blob_type_of, mime_type_of

GOOD: dict[str, list[Any]] = {
    "string": ["", "a"],
    "number": [1, 1.5, -3],
    "integer": [0, 7],
    "float": [1.5, 2],
    "boolean": [True, False],
    "object": [{}, {"a": 1}],
    "array": [[], [1]],
    "date": ["2026-11-22"],
    "datetime": ["2026-11-22T01:02:03Z", "2026-11-22T01:02:03+02:00"],
}
BAD: dict[str, list[Any]] = {
    "string": [1, True, ["a"]],
    "number": ["1", True, [1]],
    "integer": [1.5, "1", True],
    "float": ["1.5", False],
    "boolean": [0, 1, "true"],
    "object": [[], "{}"],
    "array": [{}, "[]"],
    "date": ["22.11.2026", 20261122, "2026-13-01"],
    "datetime": ["yesterday", 3, "2026-11-22T25:00:00Z"],
}


def schema(**properties: Any) -> BucketSchema:
    return BucketSchema.model_validate({"properties": properties})


def fit(declared: BucketSchema, fields: dict[str, Any], **blobs: FieldType) -> dict[str, Any]:
    return declared.fit(blobs, fields, owner="Object 1")


def test_the_tables_below_know_every_type_of_metadata() -> None:
    assert set(GOOD) == set(BAD) == {kind.value for kind in FieldType if not kind.is_blob}


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in GOOD.items() for value in values], ids=str)
def test_a_value_of_its_type_fits(kind: str, value: Any) -> None:
    assert fit(schema(field={"type": kind.upper()}), {"field": value}) == {"field": value}


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in BAD.items() for value in values], ids=str)
def test_a_value_of_another_type_is_refused_by_name(kind: str, value: Any) -> None:
    with pytest.raises(SchemaViolation, match=f"Object 1: field 'field' must be of type {kind}"):
        fit(schema(field={"type": kind}), {"field": value})


def test_required_metadata_must_be_there() -> None:
    with pytest.raises(SchemaViolation, match="required field 'title' is missing"):
        fit(schema(title={"type": "string", "required": True}), {"title": None})


def test_a_required_blob_must_be_there() -> None:
    declared = schema(content={"type": "text", "required": True})
    with pytest.raises(SchemaViolation, match="required blob property 'content' is missing"):
        fit(declared, {})
    assert fit(declared, {}, content=FieldType.TEXT) == {}


def test_defaults_are_filled_in_and_do_not_overwrite() -> None:
    declared = schema(lang={"type": "string", "default": "en", "required": True}, year={"type": "integer", "default": 2000})
    assert fit(declared, {"year": 1999}) == {"lang": "en", "year": 1999}


def test_a_default_must_fit_too() -> None:
    with pytest.raises(SchemaViolation, match="must be of type integer"):
        fit(schema(year={"type": "integer", "default": "old"}), {})


def test_an_enum_is_closed() -> None:
    declared = schema(lang={"type": "string", "enum": ["en", "de"]})
    assert fit(declared, {"lang": "de"}) == {"lang": "de"}
    with pytest.raises(SchemaViolation, match="'fr', which is not one of"):
        fit(declared, {"lang": "fr"})


def test_nested_values_are_checked_to_their_leaves() -> None:
    declared = schema(
        tags={"type": "array", "items": {"type": "string"}},
        author={"type": "object", "properties": {"name": {"type": "string", "required": True}, "born": {"type": "integer"}}},
    )
    fields = {"tags": ["a"], "author": {"name": "x", "born": 1900, "more": True}}
    assert fit(declared, fields) == fields
    with pytest.raises(SchemaViolation, match=r"'tags'\[1\] must be of type string"):
        fit(declared, {"tags": ["a", 2]})
    with pytest.raises(SchemaViolation, match=r"'author'\.name is required"):
        fit(declared, {"author": {"born": 1900}})
    with pytest.raises(SchemaViolation, match=r"'author'\.born must be of type integer"):
        fit(declared, {"author": {"name": "x", "born": "1900"}})


def test_unknown_metadata_is_kept() -> None:
    assert fit(schema(), {"other": [1]}) == {"other": [1]}


def test_an_unknown_blob_property_is_refused() -> None:
    with pytest.raises(SchemaViolation, match="blob property 'film' is not in the bucket schema"):
        fit(schema(content={"type": "text"}), {}, film=FieldType.VIDEO)


def test_a_blob_of_another_type_is_refused_unless_any_bytes_will_do() -> None:
    with pytest.raises(SchemaViolation, match="takes text, not image"):
        fit(schema(content={"type": "text"}), {}, content=FieldType.IMAGE)
    assert fit(schema(content={"type": "binary"}), {}, content=FieldType.IMAGE) == {}


def test_a_file_goes_to_the_property_of_its_type_else_to_the_binary_one() -> None:
    declared = schema(any={"type": "binary"}, picture={"type": "image"}, title={"type": "string"})
    assert declared.property_for(FieldType.IMAGE) == "picture"
    assert declared.property_for(FieldType.TEXT) == "any"
    assert schema(picture={"type": "image"}).property_for(FieldType.TEXT) is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.TXT", "text"),
        ("a.md", "text"),
        ("a.csv", "text"),
        ("a.jpeg", "image"),
        ("a.json", "json"),
        ("a.pdf", "pdf"),
        ("a.xlsx", "excel"),
        ("a.mp3", "audio"),
        ("a.mp4", "video"),
        ("a.zip", "binary"),
        ("noextension", "binary"),
        ("folder.d/noextension", "binary"),
    ],
)
def test_a_file_name_promises_a_type(name: str, kind: str) -> None:
    assert blob_type_of(mime_type_of(name)) is FieldType(kind)


@pytest.mark.parametrize("field", ["picture", "tags", "nowhere"])
def test_a_unique_key_is_made_of_scalar_metadata(field: str) -> None:
    properties = {"picture": {"type": "image"}, "tags": {"type": "array"}, "sku": {"type": "string"}}
    body = {"bucket_name": "b", "bucket_schema": {"properties": properties}, "unique_key": {"fields": ["sku"]}}
    assert BucketCreate.model_validate(body).unique_key is not None
    with pytest.raises(ValidationError, match=f"{field!r} must be a scalar"):
        BucketCreate.model_validate({**body, "unique_key": {"fields": [field]}})
