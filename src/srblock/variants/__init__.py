"""What is trained: "R18 + D2D + SR(M=4, P=12)" read, checked, printed, and built as a network."""
