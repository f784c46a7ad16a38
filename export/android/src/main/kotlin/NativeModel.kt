package @@package

/** The model as C, through JNI; the process has one memory for it, so make one. */
class NativeModel : Model() {
    override fun run(integers: IntArray): IntArray {
        require(integers.size == INPUT_SIZE) { "the model takes $INPUT_SIZE integers, got ${integers.size}" }
        val found = IntArray(OUTPUT_SIZE)
        synchronized(LOCK) { invoke(integers, found) }
        return found
    }

    /** Forget the inputs before, if the model remembers any. */
    fun reset() = synchronized(LOCK) { begin() }

    override fun close() = Unit

    private external fun invoke(given: IntArray, found: IntArray)

    private external fun begin()

    private companion object {
        val LOCK = Any()

        init {
            System.loadLibrary("@@name")
        }
    }
}
