"""Training: torch neurons, networks built from recipes, data sets, losses and the loop.

Nothing is imported here, so that ``snncompile.train.data`` stays free of torch.
"""
