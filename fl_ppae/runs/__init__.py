"""Run directories: written during a run, read afterwards."""
