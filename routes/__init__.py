"""HTTP in, HTTP out: parse, call a service, shape the answer. No data work and no catching."""
