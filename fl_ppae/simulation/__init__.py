"""Runs the Flower apps: in this process, or on a SuperLink started for one run."""
