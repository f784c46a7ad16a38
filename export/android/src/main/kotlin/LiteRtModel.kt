package @@package

import android.content.Context
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.tensorflow.lite.DataType
import org.tensorflow.lite.Interpreter
import org.tensorflow.lite.Tensor

/** The model file in LiteRT, on the CPU. Other processors round differently: outputs may differ by a step or two. */
class LiteRtModel(context: Context, threads: Int = 1) : Model() {
    private val interpreter =
        context.assets.open("@@name.tflite").use { stream ->
            val bytes = stream.readBytes()
            val content = buffer(bytes.size)
            content.put(bytes)
            Interpreter(content, Interpreter.Options().setNumThreads(threads))
        }

    @Synchronized
    override fun run(integers: IntArray): IntArray {
        var start = 0
        val given = INPUTS.mapIndexed { index, end ->
            val tensor = interpreter.getInputTensor(index)
            val content = buffer(tensor.numBytes())
            for (place in start until start + end.size) put(content, integers[place], tensor, end)
            start += end.size
            content.rewind()
        }
        val found = OUTPUTS.indices.associateWith { buffer(interpreter.getOutputTensor(it).numBytes()) }
        interpreter.runForMultipleInputsOutputs(given.toTypedArray<Any>(), found)
        return OUTPUTS.withIndex().flatMap { (index, end) ->
            val content = found.getValue(index)
            content.rewind()
            List(end.size) { take(content, interpreter.getOutputTensor(index), end) }
        }.toIntArray()
    }

    @Synchronized
    override fun close() = interpreter.close()

    private companion object {
        fun buffer(size: Int): ByteBuffer = ByteBuffer.allocateDirect(size).order(ByteOrder.nativeOrder())

        /** A file with float ends converts them to these integers itself. */
        fun put(content: ByteBuffer, integer: Int, tensor: Tensor, end: End) {
            when (tensor.dataType()) {
                DataType.FLOAT32 -> content.putFloat((integer - end.zeroPoint) * end.scale)
                DataType.INT16 -> content.putShort(integer.toShort())
                DataType.INT32 -> content.putInt(integer)
                else -> content.put(integer.toByte())
            }
        }

        fun take(content: ByteBuffer, tensor: Tensor, end: End): Int =
            when (tensor.dataType()) {
                DataType.FLOAT32 -> Math.rint((content.float / end.scale).toDouble()).toInt() + end.zeroPoint
                DataType.UINT8 -> content.get().toInt() and 255
                DataType.INT16 -> content.short.toInt()
                DataType.INT32 -> content.int
                else -> content.get().toInt()
            }
    }
}
