"""Backends: what writes a program in a device's form into a bundle, and runs it there."""
