"""The verbs of the command line, one file each: ``run(options) -> exit code``."""
