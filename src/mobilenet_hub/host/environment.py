"""Every environment variable that this package reads or sets, and the one way to read each."""

import os

# Name -> what it does, in Markdown: docs/environment.md is made from this.
VARIABLES: dict[str, str] = {
    "MOBILENET_HUB_CACHE": "the folder of fetched modules and compiled networks (default: the platform's own for "
    "caches, then `mobilenet-hub`)",
    "MOBILENET_HUB_OFFLINE": "`1`, `true`, `yes` or `on`: no connection is made, whatever module is asked for; unset, "
    "empty, `0`, `false`, `no` or `off`: modules that are asked for are fetched",
    "MOBILENET_HUB_MIRROR": "your own server, or a folder of archives, asked before the others for modules",
    "MOBILENET_HUB_SOURCES": "where modules are asked for, in which order and at which addresses",
    "MOBILENET_HUB_TOKEN": "the token that `mobilenet serve` demands, as `--token` does, where `ps` does not show it",
    "TFHUB_CACHE_DIR": "tensorflow_hub's cache: modules are taken from it, nothing is written there",
    "KAGGLEHUB_CACHE": "kagglehub's cache: modules are taken from it, nothing is written there",
    "XDG_CACHE_HOME": "on Linux the place for caches (default: `~/.cache`)",
    "LOCALAPPDATA": "on Windows the place for caches",
    "KERAS_BACKEND": "`tensorflow`, `torch` or `jax`: what Keras runs on; where it is unset, one that is installed",
    "KERAS_HOME": "the folder of Keras' own configuration, which is asked after `KERAS_BACKEND`",
    "AWS_ENDPOINT_URL_S3": "the server that `s3://` addresses are of, where it is not Amazon's",
    "AWS_ENDPOINT_URL": "the same",
    "AWS_REGION": "the region of a bucket on such a server; Amazon is asked for it (its credentials: "
    "docs/many_machines.md)",
    "AWS_DEFAULT_REGION": "the same",
    "AWS_NO_SIGN_REQUEST": "`yes`: `s3://` addresses are read without credentials, as public buckets can be",
    "AWS_CA_BUNDLE": "a file of the certificates that vouch for such a server, where they are your own",
    "AWS_MAX_ATTEMPTS": "how often a request to a store is tried, with pauses that grow (default: 6)",
    "STORAGE_EMULATOR_HOST": "the server that `gs://` addresses are of, where it is not Google's",
    "GS_NO_SIGN_REQUEST": "`yes`: `gs://` addresses are read without credentials",
    "NO_COLOR": "not empty: tables are plain ASCII on a terminal, too",
    "TERM": "`dumb`: the same",
    "TF_CPP_MIN_LOG_LEVEL": "what TensorFlow reports; set to `3`, errors only, before exports and training where unset",
    "RAY_USAGE_STATS_ENABLED": "what Ray reports to its makers; set to `0` before a run on a cluster where it is unset",
    "TF_ENABLE_ONEDNN_OPTS": "TensorFlow's faster kernels; set to `1` before training where it is unset",
}
_OFF = frozenset(["", "0", "false", "no", "off"])


def setting(name: str) -> str:
    """Return a variable's value without the blanks around it; "" where it is unset.

    Example:
        >>> setting("TERM") == setting("TERM").strip()
        True
    """
    assert name in VARIABLES, f"{name} is not listed"
    return os.environ.get(name, "").strip()


def set_variable(name: str, value: str) -> None:
    """Set a variable that is unset or empty, for the libraries that this process will import."""
    if not setting(name):
        os.environ[name] = value


def is_offline() -> bool:
    """Tell whether MOBILENET_HUB_OFFLINE forbids connections: whatever it holds, in any case of letters, but an "off".

    Example:
        >>> is_offline() in (True, False)
        True
    """
    return setting("MOBILENET_HUB_OFFLINE").lower() not in _OFF
