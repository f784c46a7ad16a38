package org.tensorflow.lite;

public class Interpreter implements AutoCloseable {
    public static class Options {
        public native Options setNumThreads(int threads);
    }

    public Interpreter(java.nio.ByteBuffer model, Options options) {}

    public native Tensor getInputTensor(int index);

    public native Tensor getOutputTensor(int index);

    public native void runForMultipleInputsOutputs(Object[] inputs, java.util.Map<Integer, Object> outputs);

    @Override
    public native void close();
}
