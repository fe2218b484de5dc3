"""The catalog: the record, the queue and the truth. The only package that knows SQL."""

from mixpeek_dagster.catalog.catalog import Catalog, Records

__all__ = ["Catalog", "Records"]
