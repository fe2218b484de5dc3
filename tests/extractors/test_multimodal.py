"""Text and image of one object: side by side, or in one space."""

from pathlib import Path

import numpy as np
import pytest

from mixpeek_dagster.errors import BadRequest, Invalid
from mixpeek_dagster.extractors.catalogue import create
from mixpeek_dagster.extractors.content import Content
from mixpeek_dagster.extractors.engine import extract
from mixpeek_dagster.extractors.models import ModelStore

from .test_image import encode, gradient

TEXT, IMAGE = Content(b"a red cat"), Content(encode(gradient()))


def test_side_by_side_an_object_is_one_document_with_two_vectors(default_models: ModelStore) -> None:
    extractor = create("multimodal_extractor_v1", models=default_models)
    both, text, image, none = extract(
        extractor, [{"text": TEXT, "image": IMAGE}, {"text": TEXT}, {"image": IMAGE}, {}], threads=2
    )
    (unit,) = both.units
    assert {name: vector.shape for name, vector in unit.vectors.items()} == {"text_embedding": (384,), "image_embedding": (1280,)}
    assert unit.fields == {"text": "a red cat", "truncated": False, "width": 300, "height": 200, "format": "png"}
    assert list(text.units[0].vectors) == ["text_embedding"]
    assert list(image.units[0].vectors) == ["image_embedding"]
    assert none.error is not None
    assert none.error.message == "The object has neither a text nor an image."
    separate = create("image_extractor_v1", models=default_models).embed_query(IMAGE.data, output="embedding")
    np.testing.assert_allclose(unit.vectors["image_embedding"], separate, atol=1e-5)


def test_with_a_joint_pack_every_input_is_a_document_in_one_space(models_folder: ModelStore, joint_pack: Path) -> None:
    extractor = create("multimodal_extractor_v1", {"model": str(joint_pack)}, models=models_folder)
    assert [(output.name, output.dim) for output in extractor.outputs] == [("multimodal_embedding", 4)]
    objects = [{"text": TEXT, "image": IMAGE}, {"text": Content(b"blue dog")}, {"image": IMAGE}]
    both, text, image = extract(extractor, objects, threads=2)
    assert [sorted(unit.fields) for unit in both.units] == [["format", "height", "width"], ["text", "truncated"]]
    assert all(unit.vectors["multimodal_embedding"].shape == (4,) for one in (both, text, image) for unit in one.units)
    by_text = extractor.embed_query("a red cat", output="multimodal_embedding")
    by_image = extractor.embed_query(IMAGE.data, output="multimodal_embedding")
    np.testing.assert_allclose(both.units[0].vectors["multimodal_embedding"], by_image, atol=1e-5)
    np.testing.assert_allclose(both.units[1].vectors["multimodal_embedding"], by_text, atol=1e-5)
    np.testing.assert_allclose(image.units[0].vectors["multimodal_embedding"], by_image, atol=1e-5)


def test_a_damaged_image_fails_its_object_although_the_text_is_fine(default_models: ModelStore) -> None:
    extractor = create("multimodal_extractor_v1", models=default_models)
    broken, fine = extract(extractor, [{"text": TEXT, "image": Content(IMAGE.data[:500], "a.png")}, {"text": TEXT}])
    assert broken.error is not None
    assert "a.png is a damaged or truncated PNG image" in broken.error.message
    assert fine.error is None


def test_queries_go_to_the_tower_of_their_output(default_models: ModelStore) -> None:
    extractor = create("multimodal_extractor_v1", models=default_models)
    assert extractor.embed_query("cat", output="text_embedding").shape == (384,)
    with pytest.raises(BadRequest, match="not with a text"):
        extractor.embed_query("cat", output="image_embedding")
    with pytest.raises(BadRequest, match="it has text_embedding, image_embedding"):
        extractor.embed_query("cat", output="multimodal_embedding_2")


def test_what_needs_models_that_are_not_here_is_refused(default_models: ModelStore) -> None:
    defaults_of_the_sdk = {"run_ocr": False, "run_multimodal_embedding": True, "time_split_interval": 10, "sensitivity": "low"}
    create("multimodal_extractor_v1", defaults_of_the_sdk, models=default_models)
    with pytest.raises(Invalid, match="run_transcription is not offered"):
        create("multimodal_extractor_v1", {"run_transcription": True}, models=default_models)
