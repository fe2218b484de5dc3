"""Schema mappings: which property of its bucket a synced file goes to, and what its name and folders say about it.

{"mappings": {"video": {"target_type": "blob", "source": {"type": "file"}, "blob_type": "video"},
              "brand": {"target_type": "field", "source": {"type": "folder_path", "segment": 0}, "transform": "lowercase"}}}
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.models.buckets import BucketSchema, FieldType
from mixpeek_dagster.models.patterns import regex
from mixpeek_dagster.models.values import Lenient, check_json

_TRANSFORMS: Mapping[str, Callable[[str], Any]] = {
    "lowercase": str.lower,
    "uppercase": str.upper,
    "trim": str.strip,
    "json_parse": json.loads,
}
_LONGEST_NAME = 255
_MAX_STEPS = 2e8


class FileSource(Lenient):
    """The file itself."""

    type: Literal["file"]


class FilenameRegex(Lenient):
    """What a pattern finds in the file's name: its first group, or all of it; `default` when it finds nothing."""

    type: Literal["filename_regex"]
    pattern: str = Field(min_length=1, max_length=512)
    default: str | None = None

    @field_validator("pattern")
    @classmethod
    def _is_quick(cls, value: str) -> str:
        try:
            effort = regex(re.sub(r"\(\?P<\w+>", "(", value), case_sensitive=True).steps(_LONGEST_NAME)
            re.compile(value)
        except (ValueError, re.error) as error:
            raise ValueError(f"{value!r} is not a pattern: {error}") from error
        if effort / (_LONGEST_NAME if value.startswith("^") else 1) > _MAX_STEPS:
            raise ValueError(f"{value!r} may take for ever on a long name: begin it with ^, and repeat less")
        return value

    def read(self, path: str) -> str | None:
        found = re.search(self.pattern, path.rpartition("/")[2][:_LONGEST_NAME])
        if found is None:
            return self.default
        return found[1] if found.re.groups else found[0]


class FolderPath(Lenient):
    """A folder that the file is in: the one at `segment` (0 is the first below the source path, -1 the last), or the whole path."""

    type: Literal["folder_path"]
    segment: int | None = None
    full_path: bool = False

    def read(self, path: str) -> str | None:
        folders = path.split("/")[:-1]
        if self.full_path or self.segment is None:
            return "/".join(folders) or None
        return folders[self.segment] if -len(folders) <= self.segment < len(folders) else None


class Constant(Lenient):
    """The same value for every file."""

    type: Literal["constant"]
    value: Any = None

    def read(self, path: str) -> Any:
        return self.value


FieldSource = Annotated[FilenameRegex | FolderPath | Constant, Field(discriminator="type")]
_NOT_LISTED = {"tag", "metadata", "column"}


class BlobMapping(Lenient):
    """Which files go to the property that the mapping is named after; `auto` are those of the property's own type."""

    target_type: Literal["blob"]
    source: FileSource
    blob_type: str = "auto"
    mime_type_override: str | None = Field(default=None, max_length=255)

    @field_validator("blob_type")
    @classmethod
    def _is_a_blob_type(cls, value: str) -> str:
        known = sorted(kind.value for kind in FieldType if kind.is_blob)
        if value.lower() != "auto" and value.lower() not in known:
            raise ValueError(f"expected auto or one of {known}")
        return value.lower()


class FieldMapping(Lenient):
    """Where a field's value comes from."""

    target_type: Literal["field"]
    source: FieldSource
    transform: Literal["lowercase", "uppercase", "trim", "json_parse"] | None = None
    required: bool = False

    def value(self, path: str) -> Any:
        """The field's value for the file at `path` below the source; None when its path does not say it.

        Raises:
            ValueError: the value cannot be transformed.
        """
        found = self.source.read(path)
        if not isinstance(found, str) or self.transform is None:
            return found
        return _TRANSFORMS[self.transform](found)


class SchemaMapping(Lenient):
    """Mappings by the bucket's property."""

    mappings: Mapping[str, Annotated[BlobMapping | FieldMapping, Field(discriminator="target_type")]] = {}

    @model_validator(mode="before")
    @classmethod
    def _listings_tell_it(cls, body: Any) -> Any:
        """Tags, metadata and columns are no part of a listing: reading them would cost a request for every file."""
        entries = body.get("mappings") if isinstance(body, Mapping) else None
        for name, entry in entries.items() if isinstance(entries, Mapping) else ():
            source = entry.get("source") if isinstance(entry, Mapping) else None
            kind = source.get("type") if isinstance(source, Mapping) else None
            if kind in _NOT_LISTED:
                raise ValueError(
                    f"{name}: source type {kind!r} is not supported; take file, filename_regex, folder_path or constant"
                )
        return body

    def property_for(self, kind: FieldType, schema: BucketSchema) -> str | None:
        """The blob property for a file of this type; without blob mappings the one that the schema has for it."""
        blobs = {name: entry for name, entry in self.mappings.items() if isinstance(entry, BlobMapping)}
        if not blobs:
            return schema.property_for(kind)
        for name, entry in blobs.items():
            declared = schema.blobs.get(name)
            wanted = declared.type.value if declared and entry.blob_type == "auto" else entry.blob_type
            if declared is not None and (wanted == kind.value or wanted == FieldType.BINARY.value):
                return name
        return None

    def mime_type(self, name: str) -> str | None:
        """What every file of a property is said to be, whatever the provider says."""
        entry = self.mappings.get(name)
        return entry.mime_type_override if isinstance(entry, BlobMapping) else None

    def fields(self, path: str) -> dict[str, Any]:
        """The mapped fields of the file at `path`.

        Raises:
            ValueError: a required one is missing, or a value cannot be transformed; the message names the field.
        """
        found: dict[str, Any] = {}
        for name, entry in self.mappings.items():
            if not isinstance(entry, FieldMapping):
                continue
            try:
                value = entry.value(path)
                check_json(value)
            except (ValueError, RecursionError, Invalid) as error:
                raise ValueError(f"mapped field {name!r} cannot be read: {error}") from error
            if value is None and entry.required:
                raise ValueError(f"mapped field {name!r} is required, and the path does not say it")
            if value is not None:
                found[name] = value
        return found
