"""Inferring what is known already."""

from mixpeek_dagster.pipeline.triggers import Reembed, TriggerRequest, trigger
from tests.pipeline.worlds import Library


def test_reembed_infers_again(library: Library) -> None:
    library.world.put("a.txt", b"one")
    library.cycle()
    assert library.inferred() == 1
    trigger(library.warehouse, library.passages, TriggerRequest(dedup_strategy="replace"))
    library.run()
    assert library.inferred() == 1
    for asked in (True, Reembed(only_missing=False)):
        trigger(library.warehouse, library.passages, TriggerRequest(dedup_strategy="replace", reembed=asked))
        library.run()
    assert library.inferred() == 3
    assert len(library.documents()) == 1
    library.assert_exact()
