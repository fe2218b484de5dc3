"""The extractors that are registered, described for people and for the API, and made from their parameters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from mixpeek_dagster import plugins
from mixpeek_dagster.errors import Invalid, UnknownName
from mixpeek_dagster.extractors.extractor import Extractor, Output
from mixpeek_dagster.extractors.models import ModelStore

_ICONS = {"text": "file-text", "image": "image", "multimodal": "layers"}
_TIERS = {0: (1, "SIMPLE"), 1: (2, "MODERATE"), 2: (3, "COMPLEX")}
_NO_FILES = ModelStore(Path("."))


def create(extractor_id: str, parameters: Mapping[str, Any] | None = None, *, models: ModelStore) -> Extractor:
    """The extractor `{name}_{version}`, or at a dotted path, with these parameters. Loads no model.

    Raises:
        UnknownName: nobody registered it.
        Invalid: a parameter is wrong; one line, naming it.
        ModelError: the model pack is unknown, or its manifest cannot be read.
    """
    extractor = plugins.load("extractors", extractor_id)
    try:
        params = extractor.Params.model_validate(dict(parameters or {}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = first["msg"].removeprefix("Value error, ")
        message = f"{extractor_id}: {where}: {problem}." if where else f"{extractor_id}: {problem}."
        raise Invalid(message, details={"parameter": where}) from error
    return cast(Extractor, extractor(params, models=models))


def catalogue() -> list[dict[str, Any]]:
    """Every registered extractor as the API describes it (`FeatureExtractorResponseModel`); a broken plugin is left out."""
    entries = []
    for extractor_id in sorted(plugins.known("extractors")):
        try:
            entries.append(entry(extractor_id))
        except UnknownName:
            continue
    return entries


def entry(extractor_id: str) -> dict[str, Any]:
    """One extractor of the catalogue, as JSON values.

    Raises:
        UnknownName: nobody registered it, or its module cannot be imported.
    """
    extractor = create(extractor_id, models=_NO_FILES)
    tier, label = _TIERS[min(len(extractor.outputs), 2)]
    types = sorted(set().union(*extractor.accepts.values()))
    modality = "multimodal" if len(extractor.accepts) > 1 else extractor.outputs[0].modality if extractor.outputs else ""
    return {
        "feature_extractor_name": extractor.name,
        "version": extractor.version,
        "feature_extractor_id": f"{extractor.name}_{extractor.version}",
        "description": extractor.description,
        "icon": _ICONS.get(modality, "arrow-right"),
        "category": modality or "general",
        "source": "builtin" if extractor_id in plugins.BUILT_IN["extractors"] else "custom",
        "input_schema": _schema({name: max(kinds) for name, kinds in extractor.accepts.items()}),
        "output_schema": _schema(extractor.fields),
        "parameter_schema": extractor.Params.model_json_schema(),
        "supported_input_types": types,
        "expected_input_types": {name: sorted(kinds) for name, kinds in extractor.accepts.items()},
        "max_inputs": dict.fromkeys(types, 1),
        "default_parameters": extractor.Params.model_validate({}).model_dump(mode="json"),
        "costs": {"tier": tier, "tier_label": label, "rates": []},
        "required_vector_indexes": [vector_index(extractor, output) for output in extractor.outputs],
        "required_payload_indexes": [],
        "position_fields": [name for name in extractor.fields if name in ("chunk_index", "start_char", "end_char")],
    }


def vector_index(extractor: Extractor, output: Output) -> dict[str, Any]:
    """An output as the API describes it (`VectorIndexDefinition`)."""
    name = f"{extractor.name}_{extractor.version}_{output.name}"
    inputs = sorted(set().union(*extractor.accepts.values()) if output.modality == "multimodal" else {output.modality})
    description = f"{output.modality.capitalize()} vectors of {output.dim} numbers, compared by {output.metric}."
    index = {"name": name, "description": description, "type": "dense", "dimensions": output.dim}
    index |= {"distance": output.metric, "datatype": "float32", "supported_inputs": inputs}
    uri = f"mixpeek://{extractor.name}@{extractor.version}/{output.name}"
    return {"feature_uri": uri, "name": name, "description": description, "type": "single", "index": index}


def _schema(fields: Mapping[str, str]) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": kind} for name, kind in fields.items()}}
