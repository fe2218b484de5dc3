"""Text: what is read, what is refused, and the vectors of the default model."""

import codecs

import numpy as np
import pytest

from mixpeek_dagster.errors import ExtractionError, Invalid
from mixpeek_dagster.extractors.catalogue import create
from mixpeek_dagster.extractors.content import Content
from mixpeek_dagster.extractors.engine import extract
from mixpeek_dagster.extractors.models import ModelStore
from mixpeek_dagster.extractors.text import decode

from .conftest import texts

# The first two are what the model's publisher and users print for it; the third was taken here.
CANONICAL = {
    "This is an example sentence": [0.0677, 0.0635, 0.0487, 0.0793, 0.0374],
    "hello world": [-0.0345, 0.0310, 0.0067, 0.0261, -0.0394],
    "Die Katze saß auf der Matte. 猫": [-0.0016, 0.0133, 0.1013, -0.0294, 0.0540],
}


@pytest.mark.parametrize("text", CANONICAL)
def test_vectors_of_the_default_model_are_the_published_ones(default_models: ModelStore, text: str) -> None:
    extractor = create("text_extractor_v1", models=default_models)
    (extraction,) = extract(extractor, texts(text))
    (unit,) = extraction.units
    np.testing.assert_allclose(unit.vectors["embedding"][:5], CANONICAL[text], atol=1e-3)
    assert unit.vectors["embedding"].shape == (384,)
    assert np.linalg.norm(unit.vectors["embedding"]) == pytest.approx(1, abs=1e-5)


def test_a_query_finds_the_text_that_means_the_same(default_models: ModelStore) -> None:
    extractor = create("text_extractor_v1", models=default_models)
    found = extract(extractor, texts("The stock market fell by three percent.", "A kitten sleeps on the sofa."))
    query = extractor.embed_query("a cat is resting", output="embedding")
    far, near = (float(query @ extraction.units[0].vectors["embedding"]) for extraction in found)
    assert near > 0.4 > far


def test_a_document_carries_its_place_in_the_text(default_models: ModelStore) -> None:
    extractor = create("text_extractor_v1", {"split_by": "sentences", "chunk_size": 1}, models=default_models)
    (extraction,) = extract(extractor, texts("\ufeffOne here. Two there."))
    assert [unit.fields for unit in extraction.units] == [
        {"text": "One here.", "chunk_index": 0, "start_char": 0, "end_char": 9, "truncated": False},
        {"text": "Two there.", "chunk_index": 1, "start_char": 10, "end_char": 20, "truncated": False},
    ]


@pytest.mark.parametrize("separator", [" ", ""], ids=["words", "no-spaces"])
def test_a_long_text_is_marked_truncated_and_reads_like_its_head(default_models: ModelStore, separator: str) -> None:
    extractor = create("text_extractor_v1", {"split_by": "none"}, models=default_models)
    long, short = separator.join(["多meow"] * 20_000), separator.join(["多meow"] * 1_000)
    extractions = extract(extractor, texts(long, short))
    first, second = (extraction.units[0] for extraction in extractions)
    assert first.fields["truncated"] is second.fields["truncated"] is True
    np.testing.assert_allclose(first.vectors["embedding"], second.vectors["embedding"], atol=1e-6)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "notes.txt is empty (0 bytes)."),
        (b" \n\t\r\n", "notes.txt is empty: it holds only white space."),
        (codecs.BOM_UTF8, "notes.txt is empty: it holds only white space."),
        (b"caf\xe9 au lait", "notes.txt is not valid UTF-8: byte 0xe9 at offset 3."),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "notes.txt is not text: it looks like a PNG image."),
        (b"%PDF-1.7 all of it ASCII", "notes.txt is not text: it looks like a PDF document."),
        (b"abc\0def", "notes.txt is not text: it has a NUL character at position 3."),
        (codecs.BOM_UTF16_LE + b"a\0b", "notes.txt is not valid UTF-16: byte 0x62 at offset 4."),
    ],
)
def test_what_is_no_text_is_refused_in_plain_words(data: bytes, message: str) -> None:
    with pytest.raises(ExtractionError) as caught:
        decode(Content(data, "notes.txt"))
    assert caught.value.message == message


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_with_a_mark_are_read(encoding: str) -> None:
    assert decode(Content("Grüße, 世界\r\n".encode(encoding))) == "Grüße, 世界\r\n"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"extractor_type": "image_extractor"}, "extractor_type is 'image_extractor'"),
        ({"split_by": "time_segments"}, "time stamps"),
        ({"split_by": "verses"}, "split_by"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"chunk_size": 10_001}, "chunk_size"),
        ({"chunk_size": 10, "chunk_overlap": 10}, "must be less than chunk_size"),
        ({"chunk_sise": 10}, "did you mean 'chunk_size'"),
        ({"embedding_model": "text-embedding-3-large"}, "`model` instead"),
        ({"source_type": "youtube"}, "source_type"),
    ],
)
def test_parameters_that_cannot_be_meant_are_refused(
    models_folder: ModelStore, parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(Invalid, match="text_extractor_v1") as caught:
        create("text_extractor_v1", parameters, models=models_folder)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_parameters_of_other_clients_without_effect_change_nothing(models_folder: ModelStore) -> None:
    sent = {"extract_captions": True, "segment_length_seconds": 120, "language": "de", "response_shape": None}
    plain = create("text_extractor_v1", models=models_folder)
    assert create("text_extractor_v1", sent, models=models_folder).fingerprint == plain.fingerprint


def test_the_default_chunk_size_belongs_to_its_strategy(models_folder: ModelStore) -> None:
    fingerprints = {create("text_extractor_v1", {"split_by": by}, models=models_folder).fingerprint for by in ("words", "pages")}
    explicit = create("text_extractor_v1", {"split_by": "words", "chunk_size": 150}, models=models_folder)
    assert len(fingerprints) == 2
    assert explicit.fingerprint in fingerprints
