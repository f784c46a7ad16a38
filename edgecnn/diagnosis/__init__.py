"""Where the accuracy went: step by step from float to each runtime, and layer by layer inside an int8 file."""
