def register_functions(connection: object) -> None:
    """Replaced by the filters branch."""
