"""Vector indexes: one port, one file per engine."""
