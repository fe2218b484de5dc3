from tests.api.conftest import bucket, client, inventory, namespace, warehouse

__all__ = ["bucket", "client", "inventory", "namespace", "warehouse"]
