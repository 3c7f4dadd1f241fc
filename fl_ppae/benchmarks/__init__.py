"""Measures the time and memory of fl-ppae, each beside a baseline or an aim."""
