"""From tables to numbers: reading, cleaning, features, training and prediction of 30-day customer spend."""
