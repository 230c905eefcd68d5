"""The paper's tables as data, its overheads recomputed, and which runs a table asks for."""
