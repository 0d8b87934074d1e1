"""What is simulated by itself, beside the paper's values: sweeps over one setting at a time."""
