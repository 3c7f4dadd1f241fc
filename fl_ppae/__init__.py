"""Federated learning between hospitals through privacy-preserving autoencoders."""

__version__ = "0.1.0"
