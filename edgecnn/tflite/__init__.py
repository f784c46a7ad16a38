"""The .tflite file: its flatbuffer, the graph in it, and the operators of that graph."""
