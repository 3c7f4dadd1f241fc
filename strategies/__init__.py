"""Flower strategies of fl-ppae: one file each, composed of parts rather than copied."""
