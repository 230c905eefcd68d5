"""What the numbers say: differences, tests, power, verdicts, the audit of the paper. Numbers only."""
