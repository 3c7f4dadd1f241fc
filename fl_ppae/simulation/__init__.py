"""Running the Flower apps here: in this process, or on a SuperLink of their own."""
