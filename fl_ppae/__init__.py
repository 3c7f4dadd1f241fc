"""Federated learning between hospitals through privacy-preserving autoencoders."""

import os

__version__ = "0.1.0"

# By default, threads of torch's OpenMP spin while they wait for each other: beside other busy processes, two
# of them took 2.8 times as long, and 3.3 times the processor's time. It is read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
