"""What encodings, models and updates reveal: metrics, and the attackers' mathematics."""
