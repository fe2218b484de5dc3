"""What happens: plain functions over ports and the catalog. Knows no Dagster, no HTTP and no vendor."""
