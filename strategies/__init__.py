"""The server's Flower strategy of fl-ppae and its parts."""
