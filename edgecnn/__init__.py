"""One trained CNN, every edge runtime, one verdict."""
