"""Run directories: written as a run goes on, read back afterwards."""
