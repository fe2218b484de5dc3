"""Parameters of an extractor: strict about what changes a document, patient with what does not.

Clients of the API send every parameter their SDK knows. What has no effect here is accepted; what would change the documents but
is not offered is refused, and so is a misspelt name.
"""

import difflib
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator


class Parameters(BaseModel):
    """Base of all `Params`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    refused: ClassVar[Mapping[str, str]] = {}
    """Parameters that are not offered unless null, false or empty → what to do instead."""

    extractor_type: str

    @model_validator(mode="before")
    @classmethod
    def _nothing_meant_is_lost(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        expected = cls.model_fields["extractor_type"].default
        if data.get("extractor_type", expected) != expected:
            raise ValueError(f"extractor_type is {data['extractor_type']!r}, but the extractor is {expected!r}")
        for name, value in data.items():
            if value and name in cls.refused:
                raise ValueError(f"{name} is not offered: {cls.refused[name]}")
            if name not in cls.model_fields and (near := difflib.get_close_matches(name, cls.model_fields, 1, cutoff=0.85)):
                raise ValueError(f"unknown parameter {name!r}: did you mean {near[0]!r}?")
        return data

    def effective(self) -> dict[str, Any]:
        """What decides the documents, as JSON values; fields declared with `exclude=True` do not."""
        return self.model_dump(mode="json")
