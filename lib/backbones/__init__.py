"""Backbones: one record each, built by Keras or read from a file, and made pure."""
