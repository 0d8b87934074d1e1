"""What is needed before anything is measured: the machine, the model, the requests."""
