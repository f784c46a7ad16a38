package @@package

import androidx.test.platform.app.InstrumentationRegistry
import org.junit.Assert.assertTrue
import org.junit.Test

class LiteRtGoldenTest {
    @Test
    fun integersAreNearTheReference() {
        val steps = largestDifference(LiteRtModel(InstrumentationRegistry.getInstrumentation().targetContext))
        assertTrue("an output differs by $steps steps", steps <= 8)
    }
}
