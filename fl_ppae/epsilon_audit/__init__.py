"""Audits a ledger's epsilon from outside: canaries trained into one hospital, and guesses about them."""
