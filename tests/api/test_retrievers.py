"""Stored searches: what they keep, what their stages do, and what is refused."""

from typing import Any

import pytest

from tests.api.running import Shop, shop

__all__ = ["shop"]
URI = "mixpeek://stub_extractor@v1/embedding"
SEARCH = {"feature_uri": URI, "query": {"input_mode": "text", "text": "{{INPUT.query}}"}, "top_k": 10}


def search_stage(**parameters: Any) -> dict[str, Any]:
    return {"stage_name": "find", "config": {"stage_id": "feature_search", "parameters": {"searches": [SEARCH], **parameters}}}


def filter_stage(**parameters: Any) -> dict[str, Any]:
    return {"stage_name": "few", "stage_type": "filter", "config": {"stage_id": "attribute_filter", "parameters": parameters}}


@pytest.fixture
def full(shop: Shop) -> Shop:
    """Documents a, b, c and one with capital A."""
    shop.batch(shop.add("a", "b", "c", "A"), auto_submit=True)
    shop.run()
    return shop


def skus(answer: dict[str, Any]) -> list[str]:
    return [one["sku"] for one in answer["documents"]]


def test_a_retriever_is_kept_changed_listed_and_deleted(full: Shop) -> None:
    body: dict[str, Any] = {
        "retriever_name": "mine",
        "collection_identifiers": ["passages"],
        "stages": [search_stage(final_top_k=2)],
    }
    body |= {"input_schema": {"query": {"type": "text", "required": True}}, "tags": ["t"], "metadata": {"v": 1}}
    made = full.post("/v1/retrievers", body)
    assert (made["collection_ids"], made["fusion"], made["version"]) == ([full.collection_id], "rrf", 1)
    assert (
        made["stages"][0]["config"]["parameters"] == made["stages"][0]["parameters"] == {"searches": [SEARCH], "final_top_k": 2}
    )
    assert full.client.post("/v1/retrievers", json=body).status_code == 409
    changed = full.client.patch("/v1/retrievers/mine", json={"description": "d"}).json()["retriever"]
    assert (changed["version"], changed["description"], changed["metadata"]) == (2, "d", {"v": 1})
    for listed in (full.post("/v1/retrievers/list", {"search": "min"}), full.get("/v1/retrievers")):
        assert [one["retriever_id"] for one in listed["results"]] == [made["retriever_id"]]
    other = full.post("/v1/namespaces", {"namespace_name": "other"})["namespace_id"]
    assert full.client.get("/v1/retrievers/mine", headers={"X-Namespace": other}).status_code == 404
    assert full.client.delete("/v1/retrievers/mine").json()["success"] is True
    assert full.client.get("/v1/retrievers/mine").status_code == 404


def test_a_search_is_filled_with_inputs_and_cut_in_pages(full: Shop) -> None:
    schema = {"query": {"type": "text", "required": True}}
    full.post("/v1/retrievers", {"retriever_name": "mine", "stages": [search_stage()], "input_schema": schema})
    done = full.post("/v1/retrievers/mine/execute", {"inputs": {"query": "b"}, "limit": 2})
    assert skus(done)[0] == "b"
    assert done["documents"][0]["score"] == pytest.approx(1.0, abs=1e-3)
    assert (done["status"], done["pagination"]["total"], done["pagination"]["has_next"]) == ("completed", 4, True)
    assert done["stage_statistics"]["stages"]["find"]["output_count"] == 4
    rest = {"inputs": {"query": "b"}, "pagination": {"method": "cursor", "limit": 3, "cursor": done["pagination"]["cursor"]}}
    second = full.post("/v1/retrievers/mine/execute", rest)
    assert len({*skus(done), *skus(second)}) == 4
    numbered = {"inputs": {"query": "b"}, "pagination": {"method": "offset", "page_size": 2, "page_number": 2}}
    assert skus(full.post("/v1/retrievers/mine/execute", numbered)) == skus(second)[:2]
    for body in (
        {},
        {"inputs": {"query": "b"}, "pagination": {"cursor": "x"}},
        {"inputs": {"query": "b"}, "filters": {"AND": 1}},
    ):
        assert full.client.post("/v1/retrievers/mine/execute", json=body).status_code in (400, 422), body


def test_filters_narrow_the_search_and_sort_stages_order_what_was_found(full: Shop) -> None:
    def run(*stages: Any, **more: Any) -> dict[str, Any]:
        return full.post("/v1/retrievers/execute", {"stages": list(stages), "inputs": {"query": "b", "not": "b"}, **more})

    folded = filter_stage(field="sku", operator="eq", value="a", case_insensitive=True)
    assert sorted(skus(run(folded, search_stage()))) == ["A", "a"]
    assert skus(run(filter_stage(field="sku", operator="eq", value="a"), search_stage())) == ["a"]
    dynamic = filter_stage(conditions={"NOT": [{"field": "sku", "operator": "eq", "value": "{{INPUT.not}}"}]})
    by_sku = {"stage_name": "s", "config": {"stage_id": "sort_attribute", "parameters": {"field": "sku", "direction": "asc"}}}
    assert skus(run(search_stage(), dynamic, by_sku)) == ["A", "a", "c"]
    assert skus(run(by_sku)) == skus(run(search_stage(), by_sku))
    by_score = {"stage_name": "r", "config": {"stage_id": "sort_relevance"}}
    assert skus(run(search_stage(), by_sku, by_score))[0] == "b"
    assert skus(run(by_sku, search_stage(), filters={"sku": "c"})) == ["c"]
    assert skus(run({"type": "feature_search", "query": "c", "collection_ids": ["passages"], "limit": 1})) == ["c"]


def test_several_searches_are_fused(full: Shop) -> None:
    def fused(how: str, *weights: float) -> dict[str, Any]:
        searches = [{"feature_uri": URI, "query": text, "weight": weight} for text, weight in zip("ab", weights)]
        stage = {"stage_id": "feature_search", "parameters": {"searches": searches, "fusion": how, "final_top_k": 2}}
        return full.post("/v1/retrievers/execute", {"stages": [{"stage_name": "s", "config": stage}]})

    for how in ("rrf", "weighted", "max"):
        assert set(skus(fused(how, 1, 1))) == {"a", "b"}, how
    assert skus(fused("weighted", 0.1, 5))[0] == "b"
    vector = full.documents(return_vectors=True, filters={"field": "sku", "operator": "eq", "value": "c"})[0]["vectors"]
    stage = {"stage_id": "feature_search", "parameters": {"searches": [{"query": next(iter(vector.values())), "top_k": 1}]}}
    assert skus(full.post("/v1/retrievers/execute", {"stages": [{"config": stage}]})) == ["c"]
    assert full.post("/v1/features/search", {"query": {"vector": next(iter(vector.values()))}})["results"][0]["sku"] == "c"


def test_a_retriever_is_copied_and_run_for_many_inputs(full: Shop) -> None:
    schema = {"query": {"type": "text", "required": True}}
    made = full.post("/v1/retrievers", {"retriever_name": "mine", "stages": [search_stage()], "input_schema": schema})
    copy = full.post("/v1/retrievers/mine/clone", {"retriever_name": "other", "description": "d"})
    assert copy["source_retriever_id"] == made["retriever_id"]
    assert (copy["retriever"]["stages"], copy["retriever"]["description"]) == (made["stages"], "d")
    assert full.client.post("/v1/retrievers/mine/clone", json={"retriever_name": "other"}).status_code == 409
    queries = [{"inputs": {"query": "a"}}, {"inputs": {}}, {"inputs": {"query": "c"}, "filters": {"sku": "c"}}]
    done = full.post("/v1/retrievers/other/execute/batch", {"queries": queries, "settings": {"limit": 1}})
    assert [skus(one) for one in done["results"]] == [["a"], [], ["c"]]
    assert (done["total"], done["failed"]) == (3, 1)
    assert "inputs.query" in done["results"][1]["error"]
    assert full.client.post("/v1/retrievers/other/execute/batch", json={"queries": []}).status_code == 422
    found = full.post("/v1/documents/search", {"query": "b", "collection_ids": ["passages"], "page_size": 1})
    assert [one["sku"] for one in found["results"]] == ["b"]


def test_what_is_wrong_with_a_stage_is_said_or_skipped(full: Shop) -> None:
    def refused(*stages: Any, **more: Any) -> int:
        return full.client.post("/v1/retrievers/execute", json={"stages": list(stages), **more}).status_code

    assert refused({"stage_name": "x", "config": {"stage_id": "llm_filter"}}) == 422
    assert refused(filter_stage()) == 422
    assert refused(filter_stage(field="a", operator="nope", value=1)) == 422
    assert refused(search_stage(), inputs={"other": "x"}) == 422
    assert refused(search_stage(fusion="learned"), inputs={"query": "x"}) == 422
    assert refused(search_stage(searches=[{"query": {"input_mode": "image", "image": "%%%"}}])) == 422
    assert refused(search_stage(searches=[{"query": [1.0, 2.0]}])) == 422
    assert refused(search_stage(), collection_identifiers=["none"]) == 404
    assert refused() == 422
    broken = {**search_stage(searches=[{"query": "x", "feature_uri": "mixpeek://none@v1/x"}]), "on_error": "skip"}
    done = full.post("/v1/retrievers/execute", {"stages": [broken]})
    assert len(done["documents"]) == 4
    assert "was skipped" in done["warnings"][0]
    assert {one["stage_id"] for one in full.client.get("/v1/retrievers/stages").json()} >= {"feature_search", "attribute_filter"}
