"""Other people's files: one port, one file per vendor."""
