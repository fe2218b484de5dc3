"""What a collection reads from, how its inputs are mapped, and in which tier it runs."""

import random
from typing import Any

import pytest
from pydantic import ValidationError

from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.models.buckets import BucketSchema
from mixpeek_dagster.models.collections import Collection, CollectionSource, ExtractorConfig, Passthrough, downstream_tiers


def collection(name: str, *upstream: str, enabled: bool = True) -> Collection:
    kind = "bucket" if upstream[0].startswith("bkt") else "collection"
    return Collection.model_validate(
        {
            "collection_id": name,
            "collection_name": f"name of {name}",
            "namespace_id": "ns_1",
            "source": {"type": kind, f"{kind}_ids": list(upstream)},
            "feature_extractor": {"feature_extractor_name": "stub"},
            "input_schema": BucketSchema(properties={}),
            "output_schema": BucketSchema(properties={}),
            "fingerprint": "f",
            "enabled": enabled,
            "created_at": "",
            "updated_at": "",
        }
    )


def test_a_diamond_runs_its_end_after_both_sides() -> None:
    found = [
        collection("d", "b", "c"),
        collection("c", "a2"),
        collection("a2", "a"),
        collection("b", "a"),
        collection("a", "bkt"),
    ]
    assert downstream_tiers(found, roots=["bkt"]) == [["a"], ["a2", "b"], ["c"], ["d"]]


def test_the_order_in_which_collections_were_made_does_not_matter() -> None:
    found = [collection("c0", "bkt"), *(collection(f"c{n}", f"c{n - 1}") for n in range(1, 12))]
    for seed in range(20):
        random.Random(seed).shuffle(found)
        assert downstream_tiers(found, roots=["bkt"]) == [[f"c{n}"] for n in range(12)]


def test_a_cycle_is_refused_by_name() -> None:
    found = [collection("a", "bkt"), collection("b", "a", "c"), collection("c", "b")]
    with pytest.raises(Invalid, match=r"'b', 'c'.*cycle"):
        downstream_tiers(found, roots=["bkt"])


def test_disabled_collections_and_what_only_they_feed_do_not_run() -> None:
    found = [collection("a", "bkt", enabled=False), collection("b", "a"), collection("c", "bkt")]
    assert downstream_tiers(found, roots=["bkt"]) == [["c"]]


def test_other_buckets_do_not_matter() -> None:
    assert downstream_tiers([collection("a", "bkt"), collection("z", "bkt2")], roots=["bkt"]) == [["a"]]
    assert downstream_tiers([], roots=["bkt"]) == []


def test_roots_may_be_collections() -> None:
    found = [collection("a", "bkt"), collection("b", "a"), collection("c", "b")]
    assert downstream_tiers(found, roots=["a"]) == [["b"], ["c"]]


@pytest.mark.parametrize(
    ("given", "mappings"),
    [
        ({"text": "content"}, {"text": "content"}),
        ({"text": "payload.content"}, {"text": "content"}),
        ({"text": "$.content"}, {"text": "content"}),
        ({"text": "$.payload.content"}, {"text": "content"}),
        ({"text": ["content", "title"]}, {"text": "content"}),
        ([{"input_key": "text", "path": "content"}], {"text": "content"}),
        ([{"input_key": "text", "source": {"source_type": "payload"}, "path": "meta.title"}], {"text": "meta.title"}),
        (None, {}),
        ({}, {}),
    ],
    ids=str,
)
def test_every_form_of_input_mappings_means_the_same(given: Any, mappings: dict[str, str]) -> None:
    assert ExtractorConfig(feature_extractor_name="stub", input_mappings=given).input_mappings == mappings


@pytest.mark.parametrize("given", [["content"], "content", [{"path": "content"}], 3], ids=str)
def test_mappings_of_no_known_form_are_refused_in_words(given: Any) -> None:
    with pytest.raises(ValidationError):
        ExtractorConfig(feature_extractor_name="stub", input_mappings=given)


def test_parameters_of_another_extractor_are_refused() -> None:
    with pytest.raises(ValidationError, match="parameters are for 'image_extractor'"):
        ExtractorConfig(feature_extractor_name="text_extractor", parameters={"extractor_type": "image_extractor"})


def test_nulls_are_absent() -> None:
    config = ExtractorConfig.model_validate({"feature_extractor_name": "x", "parameters": None, "field_passthrough": None})
    assert (config.parameters, list(config.field_passthrough), config.extractor_id) == ({}, [], "x_v1")


def test_sources_may_be_named_in_the_singular() -> None:
    assert CollectionSource.model_validate({"type": "bucket", "bucket_id": "b", "collection_id": None}).upstream == ["b"]
    assert CollectionSource.model_validate({"type": "collection", "collection_id": "c"}).upstream == ["c"]


@pytest.mark.parametrize("body", [{"type": "bucket"}, {"type": "bucket", "collection_ids": ["c"]}, {"type": "other"}], ids=str)
def test_a_source_without_its_ids_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CollectionSource.model_validate(body)


def test_a_field_passes_through_under_its_last_name_unless_another_is_given() -> None:
    assert Passthrough(source_path="meta.title").target == "title"
    assert Passthrough(source_path="meta.title", target_path="headline").target == "headline"
