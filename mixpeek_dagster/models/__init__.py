"""Vocabulary: frozen pydantic values with no input or output."""
