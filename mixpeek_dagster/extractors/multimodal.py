"""Text and image of one object: side by side with two models, or in one space with a joint model.

With the default packs an object becomes one unit with a text vector and an image vector, which are not comparable. With a joint
pack (`model`) it becomes one unit per input, all with vectors of the same space, so that a text finds images.
"""

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from mixpeek_dagster.errors import BadRequest, ExtractionError
from mixpeek_dagster.extractors.content import Content
from mixpeek_dagster.extractors.extractor import Input, Output, Packing, Unit, Vectors, fingerprint
from mixpeek_dagster.extractors.image import DECODING, ImageTower, picture_fields
from mixpeek_dagster.extractors.models import ModelStore
from mixpeek_dagster.extractors.parameters import Parameters
from mixpeek_dagster.extractors.text import TextTower, decode

_NO_VIDEO = "videos are not read by this version; leave it out"
_JOINT = "multimodal_embedding"


class MultimodalParams(Parameters):
    """Parameters of `multimodal_extractor`."""

    refused: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("run_transcription", "run_video_description", "run_ocr", "run_transcription_embedding"), _NO_VIDEO),
        **dict.fromkeys(("run_description_embedding", "run_ocr_embedding"), _NO_VIDEO),
        "response_shape": "no language model runs here; leave it out",
    }

    extractor_type: Literal["multimodal_extractor"] = "multimodal_extractor"
    model: str | None = Field(
        default=None,
        max_length=2048,
        description="URI of a joint text-and-image pack; without one, two models work side by side.",
    )
    text_model: str = Field(default="minilm-v1", max_length=2048, description="Text pack, when there is no joint one.")
    image_model: str = Field(
        default="efficientnet-lite0-v1", max_length=2048, description="Image pack, when there is no joint one."
    )
    enable_thumbnails: bool = Field(
        default=True, exclude=True, description="Whether previews may be shown; made only when they are."
    )


class MultimodalExtractor:
    """Text and image vectors of one object."""

    name: ClassVar[str] = "multimodal_extractor"
    version: ClassVar[str] = "v1"
    description: ClassVar[str] = (
        "Reads the text and the image of an object: one document with a text vector and an image vector side by side, "
        "or, with a joint model pack, one document per input with vectors of one common space."
    )
    accepts: ClassVar[Mapping[str, frozenset[str]]] = {"text": frozenset({"text", "string"}), "image": frozenset({"image"})}
    Params: ClassVar[type[Parameters]] = MultimodalParams
    fields: ClassVar[Mapping[str, str]] = {
        "text": "string",
        "truncated": "boolean",
        "width": "integer",
        "height": "integer",
        "format": "string",
    }

    def __init__(self, params: MultimodalParams, *, models: ModelStore) -> None:
        self.params = params
        self.text = TextTower(models, params.model or params.text_model)
        self.image = ImageTower(models, params.model or params.image_model)
        text, image = (
            Output(name="text_embedding", dim=self.text.dim),
            Output(name="image_embedding", dim=self.image.dim, modality="image"),
        )
        joint = Output(name=_JOINT, dim=self.text.dim, modality="multimodal")
        self.outputs = (joint,) if params.model else (text, image)
        self.fingerprint = fingerprint(MultimodalExtractor, params, self.text.identity, self.image.identity, DECODING)

    def load(self) -> None:
        _ = self.text.model, self.image.model

    def model_files(self) -> Mapping[str, Mapping[str, str]]:
        if self.params.model:
            return {_JOINT: self.text.files}
        return {"text_embedding": self.text.files, "image_embedding": self.image.files}

    def packing(self, output: str) -> Packing:
        return self.image.packing if output == "image_embedding" else self.text.packing

    def decompose(self, inputs: Mapping[str, Content]) -> Iterator[Unit]:
        units = []
        if "image" in inputs:
            picture = self.image.picture(inputs["image"])
            units.append(Unit(picture_fields(picture), {"image_embedding": self.image.input(picture)}))
        if "text" in inputs:
            text = decode(inputs["text"])
            tokens = self.text.tokenize(text)
            units.append(Unit({"text": text, "truncated": tokens.truncated}, {"text_embedding": tokens.input}))
        if not units:
            raise ExtractionError("The object has neither a text nor an image.")
        if self.params.model:
            yield from map(self._in_joint_space, units)
        else:
            yield Unit(dict(ChainMap(*(unit.fields for unit in units))), dict(ChainMap(*(unit.inputs for unit in units))))

    def _in_joint_space(self, unit: Unit) -> Unit:
        ((output, given),) = unit.inputs.items()
        # An image costs as much as the longest text, so the two are rarely called together.
        cost = given.cost if output == "text_embedding" else self.text.tower.max_tokens
        return Unit(unit.fields, {_JOINT: Input((output, given.payload), cost)})

    def embed(self, output: str, payloads: Sequence[Any]) -> Vectors:
        if output != _JOINT:
            return self._tower(output).embed(payloads)
        vectors = np.empty((len(payloads), self.text.dim), dtype=np.float32)
        for side in ("text_embedding", "image_embedding"):
            rows = [row for row, (kind, _) in enumerate(payloads) if kind == side]
            if rows:
                vectors[rows] = self._tower(side).embed([payloads[row][1] for row in rows])
        return vectors

    def embed_query(self, query: str | bytes, *, output: str) -> Vectors:
        if output == _JOINT:
            return self._tower("text_embedding" if isinstance(query, str) else "image_embedding").embed_query(query)
        return self._tower(output).embed_query(query)

    def _tower(self, output: str) -> TextTower | ImageTower:
        towers: dict[str, TextTower | ImageTower] = {"text_embedding": self.text, "image_embedding": self.image}
        if output not in towers:
            raise BadRequest(
                f"multimodal_extractor has no output {output!r}; it has {', '.join(known.name for known in self.outputs)}."
            )
        return towers[output]
