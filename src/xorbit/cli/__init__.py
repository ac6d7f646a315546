"""The command line: thin commands over the API. What they print is decided here, nothing else."""
