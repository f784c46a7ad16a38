"""Runs a self-test that was linked as a shared library, with TFLM from the tflite-micro package beside it."""

import ctypes
import sys

from tflite_micro.python.tflite_micro import _runtime

ctypes.CDLL(_runtime.__file__, mode=ctypes.RTLD_GLOBAL)
sys.exit(ctypes.CDLL(sys.argv[1]).main())
