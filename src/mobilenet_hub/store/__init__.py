"""Modules by name: the cache of this machine, and the places that a module can be fetched from.

Read the files in this order: lock, download, cache, sources, fetch, names.
"""

from mobilenet_hub.store.resolve import is_local, locate, open_module, resolve, weights_sha256

__all__ = ["is_local", "locate", "open_module", "resolve", "weights_sha256"]
