"""An extractor whose process a file can kill, as a defect in a native library does."""

import os
import signal
from collections.abc import Iterator, Mapping

from mixpeek_dagster.extractors.content import Content
from mixpeek_dagster.extractors.extractor import Unit
from mixpeek_dagster.testing import StubExtractor


class DeadlyExtractor(StubExtractor):
    """Named in a collection as `tests.end_to_end.deadly:DeadlyExtractor`."""

    def decompose(self, inputs: Mapping[str, Content]) -> Iterator[Unit]:
        if any(content.data.startswith(b"poison") for content in inputs.values()):
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().decompose(inputs)
