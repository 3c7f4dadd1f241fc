"""What a hospital's records are owed: clipping and noise, its cost, and the ledger that keeps it."""
