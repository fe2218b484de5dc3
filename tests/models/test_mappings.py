"""What a file's name and folders say about it."""

from typing import Any

import pytest
from pydantic import ValidationError

from mixpeek_dagster.models.buckets import BucketSchema, FieldType
from mixpeek_dagster.models.mappings import SchemaMapping

PATH = "acme/2026/spring/AC-1042 Hero .jpg"


def mapping(**entries: dict[str, Any]) -> SchemaMapping:
    return SchemaMapping.model_validate({"mappings": entries})


def field(source: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"target_type": "field", "source": source, **more}


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        (field({"type": "filename_regex", "pattern": r"^([A-Z]+)-"}), "AC"),
        (field({"type": "filename_regex", "pattern": r"(?P<number>\d+)"}), "1042"),
        (field({"type": "filename_regex", "pattern": r"\d+"}), "1042"),
        (field({"type": "filename_regex", "pattern": "draft", "default": "final"}), "final"),
        (field({"type": "filename_regex", "pattern": "draft"}), None),
        (field({"type": "folder_path", "segment": 0}), "acme"),
        (field({"type": "folder_path", "segment": -1}), "spring"),
        (field({"type": "folder_path", "segment": 7}), None),
        (field({"type": "folder_path", "full_path": True}), "acme/2026/spring"),
        (field({"type": "constant", "value": {"a": [1]}}), {"a": [1]}),
        (field({"type": "folder_path", "segment": 0}, transform="uppercase"), "ACME"),
        (field({"type": "filename_regex", "pattern": "Hero "}, transform="trim"), "Hero"),
        (field({"type": "folder_path", "segment": 1}, transform="json_parse"), 2026),
        (field({"type": "filename_regex", "pattern": "[A-Z]+"}, transform="lowercase"), "ac"),
    ],
)
def test_a_field_is_read_from_the_path(entry: dict[str, Any], value: Any) -> None:
    found = mapping(name=entry).fields(PATH)
    assert found == ({} if value is None else {"name": value})


def test_a_value_that_is_missing_or_cannot_be_read_is_an_error_that_names_the_field() -> None:
    with pytest.raises(ValueError, match="'brand' is required"):
        mapping(brand=field({"type": "folder_path", "segment": 9}, required=True)).fields(PATH)
    with pytest.raises(ValueError, match="'brand' cannot be read"):
        mapping(brand=field({"type": "folder_path", "segment": 0}, transform="json_parse")).fields(PATH)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (field({"type": "tag", "key": "a"}), "source type 'tag' is not supported"),
        (field({"type": "filename_regex", "pattern": "(a"}), "is not a pattern"),
        (field({"type": "filename_regex", "pattern": "(a+)+$"}), "may take for ever"),
        (field({"type": "filename_regex", "pattern": "^.*.*.*.*.*x"}), "may take for ever"),
        (field({"type": "constant"}, transform="reverse"), "transform"),
        ({"target_type": "blob", "source": {"type": "file"}, "blob_type": "hologram"}, "auto or one of"),
        ({"target_type": "vector", "source": {"type": "file"}}, "target_type"),
    ],
)
def test_a_mapping_that_cannot_work_is_refused_when_it_is_made(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words.replace("(", r"\(")):
        mapping(name=entry)


def test_the_slowest_pattern_that_is_allowed_ends() -> None:
    slow = mapping(name=field({"type": "filename_regex", "pattern": "^a*a*a*x"}))
    assert slow.fields("folder/" + "a" * 1000) == {}


def test_blob_mappings_say_which_property_a_file_goes_to() -> None:
    schema = BucketSchema.model_validate(
        {"properties": {"hero": {"type": "image"}, "extra": {"type": "image"}, "rest": {"type": "binary"}}}
    )
    blob = {"target_type": "blob", "source": {"type": "file"}}
    assert mapping().property_for(FieldType.IMAGE, schema) == "hero"
    assert mapping(extra=blob).property_for(FieldType.IMAGE, schema) == "extra"
    assert mapping(extra=blob).property_for(FieldType.TEXT, schema) is None
    assert mapping(extra=blob, rest=blob).property_for(FieldType.TEXT, schema) == "rest"
    assert mapping(rest={**blob, "blob_type": "video"}).property_for(FieldType.VIDEO, schema) == "rest"
    assert mapping(unknown=blob).property_for(FieldType.IMAGE, schema) is None
