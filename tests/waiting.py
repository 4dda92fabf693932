"""How long the tests wait for what must happen. Only a fault makes them wait that long."""

PATIENCE = 60.0
"""Seconds: many times what anything takes on a machine that is busy with other things."""
