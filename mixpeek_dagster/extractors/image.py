"""Images: decoded small, squashed to the model's square, one vector each."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mixpeek_dagster.errors import BadRequest, ExtractionError
from mixpeek_dagster.extractors import onnx
from mixpeek_dagster.extractors.content import Content
from mixpeek_dagster.extractors.extractor import Input, Output, Packing, Unit, Vectors, fingerprint
from mixpeek_dagster.extractors.models import ModelStore
from mixpeek_dagster.extractors.parameters import Parameters
from mixpeek_dagster.extractors.pictures import Picture, open_picture

DECODING = "pictures 2"
"""Goes up when `pictures` decodes any image differently; part of every fingerprint."""


class ImageTower:
    """An image model: RGB pixels in, vectors out. Loaded on first use; thread-safe."""

    def __init__(self, models: ModelStore, uri: str) -> None:
        self._models, self._uri = models, uri
        manifest = models.manifest(uri)
        if "image" not in manifest.towers:
            raise BadRequest(f"Model pack {uri} sees no images: its modality is {manifest.modality}.")
        self.tower = manifest.towers["image"]
        self.dim = self.tower.dim
        self.identity = manifest.identity

    @property
    def files(self) -> Mapping[str, str]:
        """sha256 of every file of the model's pack."""
        return self._models.pack(self._uri).manifest.files

    @cached_property
    def model(self) -> onnx.Model:
        return onnx.load(self._models.pack(self._uri), "image", device=self._models.device)

    @property
    def packing(self) -> Packing:
        return Packing(budget=64 if self.model.on_gpu else 4)

    def picture(self, content: Content) -> Picture:
        """The image as the model wants to see it."""
        return open_picture(content, size=self.tower.preprocess.resize, filter=self.tower.preprocess.filter)

    def input(self, picture: Picture) -> Input:
        return Input(picture.pixels, 1)

    def feed(self, payloads: Sequence[NDArray[np.uint8]]) -> onnx.Feed:
        """The model's input for several images, each uint8 of shape (size, size, 3)."""
        return onnx.pixel_feed(self.tower, np.stack(payloads))

    def embed(self, payloads: Sequence[NDArray[np.uint8]]) -> Vectors:
        """float32 of shape (len(payloads), dim)."""
        return self.model.run(self.feed(payloads))

    def embed_query(self, query: str | bytes) -> Vectors:
        if isinstance(query, str):
            raise BadRequest("These vectors are made from images: search them with an image, not with a text.")
        vectors = self.embed([self.input(self.picture(Content(query))).payload])
        return np.asarray(vectors[0])


class ImageParams(Parameters):
    """Parameters of `image_extractor`."""

    extractor_type: Literal["image_extractor"] = "image_extractor"
    model: str = Field(
        default="efficientnet-lite0-v1", max_length=2048, description="Model pack: a short name, or the URI of its folder."
    )
    enable_thumbnails: bool = Field(
        default=True, exclude=True, description="Whether previews may be shown; made only when they are."
    )


class ImageExtractor:
    """One vector per image."""

    name: ClassVar[str] = "image_extractor"
    version: ClassVar[str] = "v1"
    description: ClassVar[str] = "Makes one image vector per picture, for finding copies, crops and look-alikes."
    accepts: ClassVar[Mapping[str, frozenset[str]]] = {"image": frozenset({"image"})}
    Params: ClassVar[type[Parameters]] = ImageParams
    fields: ClassVar[Mapping[str, str]] = {"width": "integer", "height": "integer", "format": "string"}

    def __init__(self, params: ImageParams, *, models: ModelStore) -> None:
        self.params = params
        self.towers = {"embedding": ImageTower(models, params.model)}
        self.outputs = (Output(name="embedding", dim=self.towers["embedding"].dim, modality="image"),)
        self.fingerprint = fingerprint(ImageExtractor, params, self.towers["embedding"].identity, DECODING)

    def load(self) -> None:
        self.towers["embedding"].model  # noqa: B018 - loads

    def model_files(self) -> Mapping[str, Mapping[str, str]]:
        return {output: tower.files for output, tower in self.towers.items()}

    def packing(self, output: str) -> Packing:
        return self.towers[output].packing

    def decompose(self, inputs: Mapping[str, Content]) -> Iterator[Unit]:
        if "image" not in inputs:
            raise ExtractionError("The object has no image.")
        picture = self.towers["embedding"].picture(inputs["image"])
        yield Unit(picture_fields(picture), {"embedding": self.towers["embedding"].input(picture)})

    def embed(self, output: str, payloads: Sequence[Any]) -> Vectors:
        return self.towers[output].embed(payloads)

    def embed_query(self, query: str | bytes, *, output: str) -> Vectors:
        return self.towers[output].embed_query(query)


def picture_fields(picture: Picture) -> dict[str, Any]:
    """What a document tells about its image: width and height in pixels as displayed, and the format in lower case."""
    return {"width": picture.width, "height": picture.height, "format": picture.format.lower()}
