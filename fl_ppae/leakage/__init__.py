"""What an encoding still shows of its image: similarity metrics."""
