"""Names of providers, extractors and vector indexes, resolved when first used.

A name is an entry point in `mixpeek_dagster.{providers,extractors,indexes}`, or a dotted path `package.module:Attribute`.
Built-ins are listed here in the same form, so importing this module imports no vendor.
"""

from collections.abc import Collection
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Literal

from mixpeek_dagster.errors import MixpeekError, UnknownName

Kind = Literal["providers", "extractors", "indexes"]

BUILT_IN: dict[Kind, dict[str, str]] = {
    "providers": {
        "local": "mixpeek_dagster.storage.local:LocalSource",
        "s3": "mixpeek_dagster.storage.s3:S3Source",
        "r2": "mixpeek_dagster.storage.s3:S3Source",
        "backblaze": "mixpeek_dagster.storage.s3:S3Source",
        "wasabi": "mixpeek_dagster.storage.s3:S3Source",
        "tigris": "mixpeek_dagster.storage.s3:S3Source",
        "supabase": "mixpeek_dagster.storage.s3:S3Source",
        "gcs": "mixpeek_dagster.storage.gcs:GCSSource",
        "azure_blob": "mixpeek_dagster.storage.azure:AzureSource",
        "box": "mixpeek_dagster.storage.box:BoxSource",
        "mux": "mixpeek_dagster.storage.mux:MuxSource",
        "fsspec": "mixpeek_dagster.storage.fsspec:FsspecSource",
    },
    "extractors": {
        "text_extractor_v1": "mixpeek_dagster.extractors.text:TextExtractor",
        "image_extractor_v1": "mixpeek_dagster.extractors.image:ImageExtractor",
        "multimodal_extractor_v1": "mixpeek_dagster.extractors.multimodal:MultimodalExtractor",
        "passthrough_extractor_v1": "mixpeek_dagster.extractors.passthrough:PassthroughExtractor",
    },
    "indexes": {
        "embedded": "mixpeek_dagster.vectors.embedded:EmbeddedIndex",
        "weaviate": "mixpeek_dagster.vectors.weaviate:WeaviateIndex",
    },
}


@cache
def known(kind: Kind) -> dict[str, str]:
    """Every registered name of one kind and the dotted path behind it; an entry point may replace a built-in."""
    registered = {point.name: point.value for point in entry_points(group=f"mixpeek_dagster.{kind}")}
    return {**BUILT_IN[kind], **registered}


def check_named(kind: Kind, name: str, *, modules: Collection[str]) -> None:
    """Whether a request may use the name: it is registered, or a dotted path into one of `modules`, which the operator opened.

    Raises:
        UnknownName: it is neither. To look a dotted path up is to run its module's code, so nothing is imported here.
    """
    if name not in known(kind) and name.partition(":")[0] not in modules:
        choices = ", ".join(sorted(known(kind)))
        more = "; an operator can open a module to dotted paths in MIXPEEK_PLUGIN_MODULES" if ":" in name else ""
        raise UnknownName(f"Unknown {kind.removesuffix('s')} {name!r}. Known: {choices}{more}.")


@cache
def load(kind: Kind, name: str) -> Any:
    """The object behind a registered name or a dotted path.

    Raises:
        UnknownName: nobody registered the name, or its module cannot be imported.
    """
    path = name if ":" in name else known(kind).get(name)
    if path is None:
        choices = ", ".join(sorted(known(kind)))
        raise UnknownName(f"Unknown {kind.removesuffix('s')} {name!r}. Known: {choices}.")
    module, _, attribute = path.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except MixpeekError:
        raise
    except Exception as error:  # whatever stands in that module; the name may come from a request
        raise UnknownName(f"{kind.removesuffix('s').capitalize()} {name!r} cannot be loaded from {path}: {error}") from error
