package @@package

import kotlin.math.abs
import org.junit.Assert.assertEquals

/** Golden inputs and the outputs for them of @@reference, one after the other. */
private val golden: List<Pair<IntArray, IntArray>> =
    Model::class.java.getResourceAsStream("/@@name.golden")!!.bufferedReader().useLines { lines ->
        lines.map { line -> line.split(" ").map(String::toInt).toIntArray() }.toList()
    }.chunked(2) { (inputs, outputs) -> Pair(inputs, outputs) }

/** The largest difference of an output from the reference, in steps of the integers. */
fun largestDifference(model: Model): Int =
    model.use {
        golden.flatMap { (inputs, outputs) ->
            val found = it.run(inputs)
            assertEquals(outputs.size, found.size)
            found.indices.map { place -> abs(found[place] - outputs[place]) }
        }.fold(0) { most, difference -> maxOf(most, difference) }
    }
