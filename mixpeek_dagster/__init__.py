"""A self-hosted multimodal data warehouse on Dagster."""

__version__ = "0.1.0"
