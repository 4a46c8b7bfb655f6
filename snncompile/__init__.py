"""snncompile: a deployment compiler for spiking neural networks that proves the spikes are the same."""

__version__ = "0.1.0"
