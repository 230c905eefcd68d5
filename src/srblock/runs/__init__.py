"""Runs: a study's list of them, training one, its folder, its published record, testing it again."""
