"""Tables, figures, reports and privacy cards."""
