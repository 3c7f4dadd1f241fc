"""Secure aggregation: the server sees the sum of the hospitals' vectors, and no single one."""
