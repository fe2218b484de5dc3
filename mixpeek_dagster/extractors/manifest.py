"""What a model pack says about itself: a folder with ONNX files, a tokenizer where text goes in, and `manifest.json`.

    {"name": "minilm", "version": "v1", "license": "Apache-2.0", "modality": "text",
     "files": {"model.onnx": "<sha256>", "tokenizer.json": "<sha256>"},
     "inputs": {"input_ids": ["int64", [null, null]], "attention_mask": ["int64", [null, null]]},
     "outputs": {"embedding": ["float", [null, 384]]},
     "pooling": "none", "normalize": true, "max_tokens": 256}

A joint pack has `"modality": "joint"` and, in place of the last three lines, `"towers": {"text": {…}, "image": {…}}`, each naming
its own `"model"` file. Both towers must have the same dimension.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mixpeek_dagster.errors import ModelError

Side = Literal["text", "image"]
Shape = tuple[int | None, ...]
Port = tuple[Literal["int64", "int32", "uint8", "float"], Shape]
"""Element type as ONNX Runtime names it, and shape; None is a dimension that varies."""

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

TOKEN_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids"})


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Preprocess(_Value):
    """How pixels reach an image tower: squashed to `resize` × `resize`; a float input gets (pixel / 255 - mean) / std."""

    resize: int = Field(default=224, ge=8, le=2048)
    filter: Literal["fast", "bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    layout: Literal["NHWC", "NCHW"] = "NHWC"


class Tower(_Value):
    """One ONNX file and what goes in and out of it."""

    model: FileName = "model.onnx"
    tokenizer: FileName = "tokenizer.json"
    inputs: dict[str, Port] = Field(min_length=1)
    outputs: dict[str, Port] = Field(min_length=1, max_length=1)
    pooling: Literal["none", "mean", "cls"] = "none"
    normalize: bool = True
    max_tokens: int = Field(default=256, ge=2, le=65_536)
    prefix: dict[Literal["query", "document"], str] = {}
    preprocess: Preprocess = Preprocess()

    @property
    def output(self) -> str:
        return next(iter(self.outputs))

    @property
    def dim(self) -> int:
        """Length of one vector."""
        return self.outputs[self.output][1][-1] or 0

    @model_validator(mode="after")
    def _dim_is_fixed(self) -> "Tower":
        if not self.outputs[self.output][1] or self.dim < 1:
            raise ValueError(f"output {self.output!r} must end in a fixed dimension")
        return self


class Manifest(_Value):
    """A pack's `manifest.json`. `origin` tells what a pack was built from, when it was not published as ONNX."""

    name: FileName
    version: FileName
    license: str
    modality: Literal["text", "image", "joint"]
    files: dict[FileName, Sha256]
    towers: dict[Side, Tower]
    origin: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _single_tower_may_be_flat(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "towers" in data or data.get("modality") not in ("text", "image"):
            return data
        tower = {key: data[key] for key in Tower.model_fields if key in data}
        rest = {key: value for key, value in data.items() if key not in tower}
        return {**rest, "towers": {data["modality"]: tower}}

    @model_validator(mode="after")
    def _towers_fit(self) -> "Manifest":
        wanted = {"text", "image"} if self.modality == "joint" else {self.modality}
        if set(self.towers) != wanted:
            raise ValueError(f"a {self.modality} pack has the towers {sorted(wanted)}")
        if len({tower.dim for tower in self.towers.values()}) > 1:
            raise ValueError("the towers of a joint pack must have the same dimension")
        if "text" in self.towers and not {"input_ids"} <= set(self.towers["text"].inputs) <= TOKEN_INPUTS:
            raise ValueError(f"a text tower takes input_ids, and of the rest only {sorted(TOKEN_INPUTS)}")
        if "image" in self.towers and len(self.towers["image"].inputs) != 1:
            raise ValueError("an image tower takes one input")
        if any(tower.pooling == "mean" and "attention_mask" not in tower.inputs for tower in self.towers.values()):
            raise ValueError("pooling 'mean' needs the input attention_mask")
        return self

    @property
    def identity(self) -> str:
        """Changes whenever a vector could. Of a built pack it is known before the pack is built."""
        towers = {side: tower.model_dump(mode="json") for side, tower in sorted(self.towers.items())}
        return digest({"name": self.name, "version": self.version, "towers": towers, "made_from": self.origin or self.files})


def digest(value: Mapping[str, Any]) -> str:
    """sha256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def read_manifest(data: bytes, *, pack: str) -> Manifest:
    """Parse `manifest.json`.

    Raises:
        ModelError: not JSON, or a field is missing or wrong; one line, naming the pack and the field.
    """
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = f"{where}: {first['msg']}" if where else first["msg"]
        raise ModelError(f"Model pack {pack}: manifest.json is wrong ({problem}). Correct the manifest.") from error


@dataclass(frozen=True)
class Pack:
    """A model pack on this machine, its files verified when they arrived."""

    folder: Path
    manifest: Manifest

    @property
    def label(self) -> str:
        """How messages call it, e.g. `minilm v1`."""
        return f"{self.manifest.name} {self.manifest.version}"

    def file(self, name: str) -> Path:
        return self.folder / name
