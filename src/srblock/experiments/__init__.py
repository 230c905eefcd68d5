"""Variants in the paper's notation, the paper's tables as data, and studies of variants over seeds."""
