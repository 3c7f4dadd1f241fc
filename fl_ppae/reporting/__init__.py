"""What a run leaves behind: its directory, tables, figures and privacy card."""
