"""Schemes, quantisation-aware training, and the bridge to legacy Keras."""
