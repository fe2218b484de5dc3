"""The warehouse as a Dagster resource."""

from functools import cached_property

import dagster as dg
from pydantic import PrivateAttr

from mixpeek_dagster.pipeline.warehouse import Warehouse


class WarehouseResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """One process's warehouse; its settings come from the environment of the process that uses it, never from run config."""

    _given: Warehouse | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, warehouse: Warehouse) -> "WarehouseResource":
        """A resource around a warehouse that is open already."""
        resource = cls()
        resource._given = warehouse
        return resource

    def get(self) -> Warehouse:
        return self._given or _shared.warehouse


class _Shared:
    """One warehouse per process: sensors of one code server share its connections, its sources and its loaded models."""

    @cached_property
    def warehouse(self) -> Warehouse:
        return Warehouse.from_env()


_shared = _Shared()


def shared_warehouse() -> Warehouse:
    """The process's warehouse, for code that runs before there are resources: loading the plan."""
    return _shared.warehouse
