"""What the product does, in plain Python: no web framework, no queue library."""
