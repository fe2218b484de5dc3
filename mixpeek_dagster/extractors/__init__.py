"""Turning files into features: one port, one engine, one file per extractor."""
