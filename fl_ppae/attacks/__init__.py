"""Attacks on a finished run, one module each; `registry.ATTACKS` lists them all."""
