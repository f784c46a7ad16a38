"""The Cortex-M kit: the model as C99 with a test program, linker script and Makefile for boards that QEMU emulates."""
