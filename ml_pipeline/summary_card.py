"""The card on what summary numbers alone tell."""
