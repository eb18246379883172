"""Our networks inside other people's pipelines: encoded pictures in, features and reasons out."""

from mobilenet_hub.adapters import ray, spark

__all__ = ["ray", "spark"]
