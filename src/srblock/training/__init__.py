"""Train a network: task, recipe, schedule, loop, checkpoint, runtime. Knows nothing of the block."""
