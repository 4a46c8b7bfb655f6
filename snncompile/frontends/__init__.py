"""Readers: what others trained or stored, as a graph of level ``read``. One file a format."""
