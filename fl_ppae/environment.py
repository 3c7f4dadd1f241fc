"""What of the caller's environment a run uses. Everything else is the caller's own, and changes nothing.

Environments are full of what is meant for other programs: another cluster's addresses, proxies, caches,
settings of libraries that are used here too. A run's own processes get an environment made for them.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

USED = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "FL_PPAE_HOME", "HOME")
"""The variables that a run obeys, which it records: threads of the server, devices, folders."""

_SYSTEM = {"PATH", "USER", "LOGNAME", "TZ", "VIRTUAL_ENV", "CONDA_PREFIX"}
_CODE = {"PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"}
_GPU = {"CUDA_HOME", "CUDA_PATH", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"}
_TRACKER = {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}
_PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
_OF_LIBRARIES = ("MPL", "MATPLOTLIB", "TORCH", "PYTORCH", "RAY_", "FLWR_", "HF_", "GRPC_", "PYTHONWARNINGS")


def used() -> dict[str, str]:
    """The variables that this run obeys, as they are set."""
    return {name: os.environ[name] for name in USED if name in os.environ}


def for_run(*, tracked: bool) -> dict[str, str]:
    """The caller's variables that a run's own processes get.

    `tracked`: the run logs to a server elsewhere, whose address and proxies are the caller's.
    """

    def is_kept(name: str) -> bool:
        kept = name in _SYSTEM | _CODE | _GPU | set(USED)
        for_tracker = name in _TRACKER or name.lower() in _PROXIES or name.startswith("MLFLOW_")
        return kept or (tracked and for_tracker)

    kept = {name: value for name, value in os.environ.items() if is_kept(name)}
    if "PYTHONPATH" in kept:  # its processes work in another folder
        folders = kept["PYTHONPATH"].split(os.pathsep)
        kept["PYTHONPATH"] = os.pathsep.join(str(Path(folder).absolute()) for folder in folders if folder)
    return kept


def forget_settings_of_libraries() -> None:
    """Remove what libraries would obey as they are loaded in this process; call it before they are."""
    if "PYTHONWARNINGS" in os.environ:
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
    for name in [name for name in os.environ if name.startswith(_OF_LIBRARIES)]:
        del os.environ[name]
