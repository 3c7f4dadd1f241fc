"""A hospital: who it is, what it refuses, its records and state, its training, its releases."""
