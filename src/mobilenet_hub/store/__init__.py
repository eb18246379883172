"""Modules by name: the cache of this machine, and the places that a module can be fetched from.

Read the files in this order: cache, download, places, pull, resolve.
"""

from mobilenet_hub.store.resolve import is_local, is_name_of_module, locate, open_module, resolve, weights_sha256

__all__ = ["is_local", "is_name_of_module", "locate", "open_module", "resolve", "weights_sha256"]
