"""Text: UTF-8 (or UTF-16 with its mark) → chunks → token ids → one vector per chunk."""

import codecs
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mixpeek_dagster.errors import BadRequest, ExtractionError
from mixpeek_dagster.extractors import onnx
from mixpeek_dagster.extractors.chunks import CHUNKING, DEFAULT_SIZE, SplitBy, chunk
from mixpeek_dagster.extractors.content import Content
from mixpeek_dagster.extractors.extractor import Input, Output, Packing, Unit, Vectors, fingerprint
from mixpeek_dagster.extractors.models import ModelStore
from mixpeek_dagster.extractors.parameters import Parameters
from mixpeek_dagster.extractors.sniff import kind_of

Purpose = Literal["document", "query"]


class Tokens(NamedTuple):
    """A text as a model reads it; `truncated` tells that the text went on after `max_tokens`."""

    ids: NDArray[np.int64]
    truncated: bool

    @property
    def input(self) -> Input:
        return Input(self.ids, len(self.ids))


class TextTower:
    """A text model: tokens in, vectors out. Loaded on first use; thread-safe."""

    def __init__(self, models: ModelStore, uri: str) -> None:
        self._models, self._uri = models, uri
        self._manifest = models.manifest(uri)
        if "text" not in self._manifest.towers:
            raise BadRequest(f"Model pack {uri} reads no text: its modality is {self._manifest.modality}.")
        self.tower = self._manifest.towers["text"]
        self.dim = self.tower.dim
        self.identity = self._manifest.identity

    @property
    def files(self) -> Mapping[str, str]:
        """sha256 of every file of the model's pack."""
        return self._models.pack(self._uri).manifest.files

    @cached_property
    def _loaded(self) -> tuple[onnx.Model, Any, int]:
        pack = self._models.pack(self._uri)
        tokenizer = onnx.load_tokenizer(pack)
        return onnx.load(pack, "text", device=self._models.device), tokenizer, tokenizer.token_to_id("[PAD]") or 0

    @property
    def model(self) -> onnx.Model:
        return self._loaded[0]

    @property
    def packing(self) -> Packing:
        # Padding decides the speed on a CPU, the size of a call on a GPU: 512 tokens were best of 128 to 8,192 on the former.
        return Packing(budget=32_768, slack=1.5) if self.model.on_gpu else Packing(budget=512, slack=1.15)

    def tokenize(self, text: str, purpose: Purpose = "document") -> Tokens:
        """Token ids, int64 of shape (tokens ≤ max_tokens,)."""
        _, tokenizer, _ = self._loaded
        text = self.tower.prefix.get(purpose, "") + text
        head = text[: self.tower.max_tokens * 24]
        if len(head) < len(text):
            # Most of a long text would be tokenised to be thrown away. Its head, cut between words, gives the same first tokens.
            head = head.rsplit(None, 1)[0] if len(head.split(None, 1)) > 1 else text
            (encoding,) = tokenizer.encode_batch_fast([head])
            if encoding.overflowing:
                return Tokens(np.array(encoding.ids, dtype=np.int64), truncated=True)
        (encoding,) = tokenizer.encode_batch_fast([text])  # of one: the only call that releases the interpreter lock
        return Tokens(np.array(encoding.ids, dtype=np.int64), truncated=bool(encoding.overflowing))

    def feed(self, payloads: Sequence[NDArray[np.int64]]) -> onnx.Feed:
        """The model's inputs for several texts, padded to the longest."""
        pad = self._loaded[2]
        shape = len(payloads), max(map(len, payloads))
        ids, mask = np.full(shape, pad, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for row, payload in enumerate(payloads):
            ids[row, : len(payload)] = payload
            mask[row, : len(payload)] = 1
        return onnx.token_feed(self.tower, ids, mask)

    def embed(self, payloads: Sequence[NDArray[np.int64]]) -> Vectors:
        """float32 of shape (len(payloads), dim)."""
        return self.model.run(self.feed(payloads))

    def embed_query(self, query: str | bytes) -> Vectors:
        if not isinstance(query, str):
            query = decode(Content(query))
        if not query.strip():
            raise ExtractionError("The query is empty.")
        vectors = self.embed([self.tokenize(query, "query").ids])
        return np.asarray(vectors[0])


def decode(content: Content) -> str:
    """The characters of a text file, without its byte order mark.

    Raises:
        ExtractionError: nothing visible in it, not valid UTF-8 (or UTF-16 with a mark), or no text at all.
    """
    data, name = content.data, content.filename or "The text"
    if not data:
        raise ExtractionError(f"{name} is empty (0 bytes).")
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and not data.startswith(codecs.BOM_UTF32_LE)
    looks_like = kind_of(data)
    try:
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        if looks_like:
            raise ExtractionError(f"{name} is not text: it looks like {looks_like}.") from error
        encoding = "UTF-16" if utf16 else "UTF-8"
        raise ExtractionError(
            f"{name} is not valid {encoding}: byte 0x{data[error.start]:02x} at offset {error.start}."
        ) from error
    if looks_like or "\0" in text:
        where = f"it looks like {looks_like}" if looks_like else f"it has a NUL character at position {text.index(chr(0))}"
        raise ExtractionError(f"{name} is not text: {where}.")
    if not text.strip():
        raise ExtractionError(f"{name} is empty: it holds only white space.")
    return text


class TextParams(Parameters):
    """Parameters of `text_extractor`."""

    refused: ClassVar[Mapping[str, str]] = {
        "response_shape": "no language model runs here; leave it out",
        "llm_provider": "no language model runs here; leave it out",
        "llm_model": "no language model runs here; leave it out",
        "llm_api_key": "no language model runs here; leave it out",
        "embedding_model": "name a model pack in `model` instead",
    }

    extractor_type: Literal["text_extractor"] = "text_extractor"
    source_type: Literal["text"] = "text"
    split_by: SplitBy = Field(default=SplitBy.CHARACTERS, description="What chunks are made of; `none` keeps each text whole.")
    chunk_size: int = Field(
        default=1000,
        ge=1,
        le=10_000,
        description="Pieces of `split_by` in a chunk. Default: 1000 characters, 150 words, 8 sentences, else 1.",
    )
    chunk_overlap: int = Field(
        default=0, ge=0, le=5000, description="Pieces repeated from the chunk before; less than `chunk_size`."
    )
    model: str = Field(default="minilm-v1", max_length=2048, description="Model pack: a short name, or the URI of its folder.")
    language: str = Field(
        default="en", exclude=True, description="Accepted for compatibility; the model decides what it understands."
    )

    @model_validator(mode="before")
    @classmethod
    def _default_size(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("chunk_size") is not None:
            return data
        split_by = data.get("split_by") or SplitBy.CHARACTERS
        return {**data, "split_by": split_by, "chunk_size": DEFAULT_SIZE.get(split_by, 1)}

    @model_validator(mode="after")
    def _chunking_is_possible(self) -> Self:
        if self.split_by is SplitBy.TIME_SEGMENTS:
            raise ValueError(
                "split_by 'time_segments' needs a recording with time stamps; text has none. Use 'sentences' or 'paragraphs'"
            )
        if self.chunk_overlap >= self.chunk_size and self.split_by is not SplitBy.NONE:
            raise ValueError(f"chunk_overlap ({self.chunk_overlap}) must be less than chunk_size ({self.chunk_size})")
        return self


class TextExtractor:
    """One vector per chunk of a text."""

    name: ClassVar[str] = "text_extractor"
    version: ClassVar[str] = "v1"
    description: ClassVar[str] = "Splits texts into chunks and makes one text vector per chunk."
    accepts: ClassVar[Mapping[str, frozenset[str]]] = {"text": frozenset({"text", "string"})}
    Params: ClassVar[type[Parameters]] = TextParams
    fields: ClassVar[Mapping[str, str]] = {
        "text": "string",
        "chunk_index": "integer",
        "start_char": "integer",
        "end_char": "integer",
        "truncated": "boolean",
    }

    def __init__(self, params: TextParams, *, models: ModelStore) -> None:
        self.params = params
        self.towers = {"embedding": TextTower(models, params.model)}
        self.outputs = (Output(name="embedding", dim=self.towers["embedding"].dim),)
        self.fingerprint = fingerprint(TextExtractor, params, self.towers["embedding"].identity, CHUNKING)

    def load(self) -> None:
        self.towers["embedding"].model  # noqa: B018 - loads

    def model_files(self) -> Mapping[str, Mapping[str, str]]:
        return {output: tower.files for output, tower in self.towers.items()}

    def packing(self, output: str) -> Packing:
        return self.towers[output].packing

    def decompose(self, inputs: Mapping[str, Content]) -> Iterator[Unit]:
        if "text" not in inputs:
            raise ExtractionError("The object has no text.")
        text, how = decode(inputs["text"]), self.params
        spans = chunk(text, by=how.split_by, size=how.chunk_size, overlap=how.chunk_overlap)
        for index, (start, end) in enumerate(spans):
            piece = text[start:end]
            tokens = self.towers["embedding"].tokenize(piece)
            place = {"chunk_index": index, "start_char": start, "end_char": end}
            yield Unit({"text": piece, **place, "truncated": tokens.truncated}, {"embedding": tokens.input})

    def embed(self, output: str, payloads: Sequence[Any]) -> Vectors:
        return self.towers[output].embed(payloads)

    def embed_query(self, query: str | bytes, *, output: str) -> Vectors:
        return self.towers[output].embed_query(query)
