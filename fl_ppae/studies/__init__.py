"""Studies: grids of federated runs, their tables, verdicts and figures; choosing from a table."""
