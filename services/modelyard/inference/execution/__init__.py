"""How a loaded version computes: queue, batches, runners, the runtime, and what its runs may take."""
