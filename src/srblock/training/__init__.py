"""Train an image classifier: recipe, schedule, loop, checkpoint, runtime. Knows nothing of the block."""
