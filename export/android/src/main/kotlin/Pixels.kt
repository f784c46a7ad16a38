package @@package

import android.graphics.Bitmap

/** The raw values of a picture, stretched to the @@width × @@height pixels of the model's input. */
fun pixels(picture: Bitmap): FloatArray {
    val colours = IntArray(@@width * @@height)
    Bitmap.createScaledBitmap(picture, @@width, @@height, true)
        .getPixels(colours, 0, @@width, 0, 0, @@width, @@height)
    return FloatArray(colours.size * @@channels) { place ->
        val colour = colours[place / @@channels]
        val (red, green, blue) = listOf(colour shr 16 and 255, colour shr 8 and 255, colour and 255)
        val parts = if (@@channels == 1) listOf((299 * red + 587 * green + 114 * blue) / 1000) else listOf(red, green, blue)
        parts[place % @@channels].toFloat()
    }
}
