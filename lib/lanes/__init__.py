"""The engine: many runs of one backbone trained as lanes of one model (docs/speed.md)."""
