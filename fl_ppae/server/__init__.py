"""The server: rounds, evaluation, uploads and the central classifier."""
