"""Where accuracy was lost: step by step from float to each runtime, and layer by layer in an int8 file."""
