"""Backends that need something special around them."""
