"""The one organization of a self-hosted warehouse: ids that clients require and that mean nothing here."""

ORGANIZATION = "int_selfhosted00000000000000"
USER = "usr_selfhosted00000"
NAME = "Self-hosted"
