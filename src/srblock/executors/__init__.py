"""Who trains which run: this process, several processes, a Ray cluster."""
