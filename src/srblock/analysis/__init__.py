"""What the numbers say: statistics, cost, what was recalled."""
