"""The server's side of a run: session, rounds, uploads, evaluation, results."""
