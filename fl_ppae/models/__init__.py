"""The networks: autoencoders and the task head (hospitals), classifiers of encodings (server)."""
