"""From decoded images or files to augmented, normalized batches on the device."""
