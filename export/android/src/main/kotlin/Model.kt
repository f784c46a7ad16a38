package @@package

import java.io.Closeable

/** An input or output: as many values, each `(integer - zeroPoint) * scale`, integers of `low` to `high`. */
class End(val name: String, val size: Int, val scale: Float, val zeroPoint: Int, val low: Int, val high: Int)

/** The model `@@model`. Every function may be called from several threads; calls wait for each other. */
abstract class Model : Closeable {
    /** Run the model on integers, those of several inputs one after the other; so are the outputs. */
    abstract fun run(integers: IntArray): IntArray

    /** The outputs as real numbers, for the raw values of each input: @@raw. */
    fun predict(vararg raw: FloatArray): List<FloatArray> {
        require(raw.size == INPUTS.size) { "the model takes ${INPUTS.size} inputs, got ${raw.size}" }
        val integers = INPUTS.zip(raw.asList()).flatMap { (end, values) -> quantize(values, end).asList() }
        val found = run(integers.toIntArray())
        var start = 0
        return OUTPUTS.map { end ->
            val part = FloatArray(end.size) { (found[start + it] - end.zeroPoint) * end.scale }
            start += end.size
            part
        }
    }

    companion object {
        /** What multiplies a raw value, and what is added to it, before it is quantised. */
        const val SCALE = @@{scale}f
        const val OFFSET = @@{offset}f

        val INPUTS = listOf(@@inputs)
        val OUTPUTS = listOf(@@outputs)

        /** How many integers the model takes and gives. */
        val INPUT_SIZE = INPUTS.map { it.size }.sum()
        val OUTPUT_SIZE = OUTPUTS.map { it.size }.sum()

        /** The names of the classes, in the order of the outputs; empty if the model has none. */
        val LABELS = listOf<String>(@@labels)

        private fun quantize(raw: FloatArray, end: End): IntArray {
            require(raw.size == end.size) { "the input ${end.name} takes ${end.size} values, got ${raw.size}" }
            return IntArray(end.size) {
                val real = raw[it] * SCALE + OFFSET
                require(!real.isNaN()) { "the input ${end.name} has a value that is not a number" }
                val step = Math.rint((real / end.scale).toDouble()) + end.zeroPoint
                step.coerceIn(end.low.toDouble(), end.high.toDouble()).toInt()
            }
        }
    }
}
