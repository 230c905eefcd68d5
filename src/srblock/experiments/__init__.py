"""A whole experiment, from words to a report: what the command line and Python code call alike."""
