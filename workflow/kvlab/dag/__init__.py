"""What the workflow's rules need: the files a stage depends on, and the container."""
