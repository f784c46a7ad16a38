package @@package

import org.junit.Assert.assertEquals
import org.junit.Test

class NativeGoldenTest {
    @Test
    fun everyIntegerIsAsInTheReference() = assertEquals(0, largestDifference(NativeModel()))
}
