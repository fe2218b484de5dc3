"""Retrievers: stored searches, made of stages that each take the documents of the one before."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.models.ids import NamespaceId
from mixpeek_dagster.models.values import Lenient

STAGES: Final[Mapping[str, str]] = {
    "feature_search": "filter",
    "attribute_filter": "filter",
    "sort_attribute": "sort",
    "sort_relevance": "sort",
}
"""The kinds of stage there are, and the category of each."""

Id = Annotated[str, Field(min_length=1, max_length=255)]
_TEMPLATE = re.compile(r"\{\{\s*(?:INPUTS?|inputs?)\.([\w.-]{1,200})\s*\}\}")


class Stage(Lenient):
    """One stage: `config` holds the `stage_id` and its `parameters`. Flat and older forms (`type`) are read too."""

    stage_name: str = Field(min_length=1, max_length=200)
    stage_id: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    on_error: Literal["error", "skip"] = "error"
    description: str | None = Field(default=None, max_length=2000)

    @model_validator(mode="before")
    @classmethod
    def _plain_form(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        body = {key: value for key, value in body.items() if value is not None}
        config = body.get("config")
        own = config if isinstance(config, dict) else body
        kind = own.get("stage_id") or own.get("type")
        parameters = own.get("parameters")
        if not isinstance(parameters, dict):
            words = {"config", "stage_id", "stage_name", "stage_type", "type", "parameters", "on_error", "description"}
            parameters = {key: value for key, value in own.items() if key not in words}
        named = {name: body[name] for name in ("stage_name", "on_error", "description") if name in body}
        return {"stage_name": kind, **named, "stage_id": kind, "parameters": parameters}

    @model_validator(mode="after")
    def _is_known(self) -> "Stage":
        if self.stage_id not in STAGES:
            raise ValueError(f"unknown stage {self.stage_id!r}; known are {', '.join(sorted(STAGES))}")
        return self


class InputField(Lenient):
    """One input of a retriever."""

    type: str = Field(default="string", max_length=50)
    required: bool = False
    default: Any = None
    description: str | None = Field(default=None, max_length=2000)
    enum: Sequence[Any] | None = Field(default=None, max_length=1000)


class RetrieverCreate(Lenient):
    """Body of a new retriever. Without collections it searches the whole namespace."""

    retriever_name: str = Field(min_length=1, max_length=255, pattern=r"^[^/\x00-\x1f]+$")
    description: str | None = Field(default=None, max_length=2000)
    collection_identifiers: Sequence[Id] = Field(default=(), max_length=1000)
    stages: Sequence[Stage] = Field(min_length=1, max_length=20)
    input_schema: dict[str, InputField] = Field(default_factory=dict, max_length=100)
    tags: Sequence[Annotated[str, Field(max_length=100)]] = Field(default=(), max_length=100)
    metadata: dict[str, Any] | None = None


class RetrieverPatch(Lenient):
    """What may change of a retriever; stages are replaced as a whole."""

    retriever_name: str | None = Field(default=None, min_length=1, max_length=255, pattern=r"^[^/\x00-\x1f]+$")
    description: str | None = Field(default=None, max_length=2000)
    collection_identifiers: Sequence[Id] | None = Field(default=None, max_length=1000)
    stages: Sequence[Stage] | None = Field(default=None, min_length=1, max_length=20)
    input_schema: dict[str, InputField] | None = Field(default=None, max_length=100)
    tags: Sequence[Annotated[str, Field(max_length=100)]] | None = Field(default=None, max_length=100)
    metadata: dict[str, Any] | None = None


class RetrieverClone(RetrieverPatch):
    """A copy under another name, and what is different about it."""

    retriever_name: str = Field(min_length=1, max_length=255, pattern=r"^[^/\x00-\x1f]+$")


class Retriever(RetrieverCreate):
    """A retriever as recorded; its collections are named by id. `version` grows with every change."""

    retriever_id: str
    namespace_id: NamespaceId
    version: int = 1
    created_at: str
    updated_at: str


def taken_inputs(schema: Mapping[str, InputField], given: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of one execution, defaults filled in.

    Raises:
        Invalid: a required input is missing, or a value is none that the schema allows.
    """
    inputs = dict(given)
    for name, field in schema.items():
        if inputs.get(name) is None and field.default is not None:
            inputs[name] = field.default
        if inputs.get(name) is None and field.required:
            raise Invalid(f"inputs.{name}: the retriever needs it")
        if field.enum is not None and inputs.get(name) is not None and inputs[name] not in field.enum:
            raise Invalid(f"inputs.{name}: one of {', '.join(map(str, field.enum))}")
    return inputs


def filled(value: Any, inputs: Mapping[str, Any]) -> Any:
    """A value with its templates replaced: `{{INPUT.query}}` alone becomes the input itself, within a text its text.
    `{"type": "dynamic", "field": "inputs.query"}` is the same.

    Raises:
        Invalid: an input that is named is missing.
    """
    if isinstance(value, str):
        whole = _TEMPLATE.fullmatch(value.strip())
        return _input(whole[1], inputs) if whole else _TEMPLATE.sub(lambda found: str(_input(found[1], inputs)), value)
    if isinstance(value, Mapping):
        if value.get("type") == "dynamic" and isinstance(value.get("field"), str):
            return _input(value["field"].removeprefix("inputs."), inputs)
        return {key: filled(inner, inputs) for key, inner in value.items()}
    return [filled(inner, inputs) for inner in value] if isinstance(value, list) else value


def _input(path: str, inputs: Mapping[str, Any]) -> Any:
    found: Any = inputs
    for step in path.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    if found is None:
        raise Invalid(f"inputs.{path}: a stage needs it, and it is missing")
    return found
