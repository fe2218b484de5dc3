"""The REST API of the seed pages over one warehouse. Routers are thin: parse, one call into `pipeline`, answer."""

from mixpeek_dagster.api.app import create_app

__all__ = ["create_app"]
