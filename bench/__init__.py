"""Measurements beside peers: not tests, never run by them. `python -m bench` runs all."""
