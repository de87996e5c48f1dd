"""What is trained: where a run starts, and under which preset."""
