"""The graph: ops, edges, shapes and signals, the grammar of each level, text form and store."""
