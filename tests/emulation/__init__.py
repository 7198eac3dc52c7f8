"""Instructions that the processor of a test may lack, in software."""
