"""The catalogue the API shows, and the two extractors without a model."""

import json
from pathlib import Path

import numpy as np
import pytest

from mixpeek_dagster.errors import BadRequest, UnknownName
from mixpeek_dagster.extractors.catalogue import catalogue, create, entry
from mixpeek_dagster.extractors.engine import extract
from mixpeek_dagster.extractors.models import ModelStore

from .conftest import texts

STUB = "mixpeek_dagster.testing:StubExtractor"
REQUIRED = {
    "feature_extractor_name", "version", "feature_extractor_id", "description", "icon", "input_schema", "output_schema",
    "parameter_schema", "supported_input_types", "max_inputs", "default_parameters", "required_vector_indexes",
    "required_payload_indexes",
}  # fmt: skip


def test_the_catalogue_describes_every_extractor_completely() -> None:
    entries = {entry["feature_extractor_id"]: entry for entry in catalogue()}
    built_in = {f"{kind}_extractor_v1" for kind in ("text", "image", "multimodal", "passthrough")}
    assert built_in <= set(entries)
    for described in entries.values():
        assert described.keys() >= REQUIRED
        assert json.loads(json.dumps(described)) == described
        assert all(
            len(index["description"]) >= 10 and index["index"]["dimensions"] > 0 for index in described["required_vector_indexes"]
        )
        assert 1 <= described["costs"]["tier"] <= 4
    names = [index["name"] for index in entries["multimodal_extractor_v1"]["required_vector_indexes"]]
    assert names == ["multimodal_extractor_v1_text_embedding", "multimodal_extractor_v1_image_embedding"]
    (index,) = entries["text_extractor_v1"]["required_vector_indexes"]
    assert index["name"] == "text_extractor_v1_embedding"
    assert index["feature_uri"] == "mixpeek://text_extractor@v1/embedding"
    assert entries["text_extractor_v1"]["default_parameters"]["chunk_size"] == 1000
    assert entries["passthrough_extractor_v1"]["required_vector_indexes"] == []


def test_default_parameters_are_accepted_back(models_folder: ModelStore) -> None:
    for described in catalogue():
        create(described["feature_extractor_id"], described["default_parameters"], models=models_folder)


def test_unknown_extractors_are_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="text_extractor_v1"):
        entry("speech_extractor_v1")


def test_passthrough_makes_one_bare_document(models_folder: ModelStore) -> None:
    extractor = create("passthrough_extractor_v1", {"preserve_metadata": True}, models=models_folder)
    (extraction,) = extract(extractor, [{}])
    assert [(unit.fields, unit.vectors) for unit in extraction.units] == [({}, {})]
    with pytest.raises(BadRequest, match="makes no vectors"):
        extractor.embed_query("anything", output="embedding")


def test_the_stub_is_deterministic_and_fails_on_request() -> None:
    models = ModelStore(Path("unused"))
    stub = create(STUB, {"fail_on": "poison"}, models=models)
    objects = texts(*(f"object {row}" for row in range(2000)), "with poison inside")
    extractions = extract(stub, objects)
    assert [row for row, one in enumerate(extractions) if one.error] == [2000]
    vector = extractions[7].units[0].vectors["embedding"]
    assert vector.shape == (384,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(vector, stub.embed_query("object 7", output="embedding"))
    assert not np.array_equal(vector, stub.embed_query("object 8", output="embedding"))
    assert create(STUB, {"fail_on": "other"}, models=models).fingerprint != stub.fingerprint
