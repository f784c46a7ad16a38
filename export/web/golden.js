/* Golden inputs (@@golden) and TensorFlow Lite Micro's outputs for them, in base64. */
globalThis.golden = @@pairs;
