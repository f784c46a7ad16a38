package @@package

import android.graphics.Bitmap
import android.graphics.Matrix
import androidx.camera.core.ImageAnalysis
import androidx.camera.core.ImageProxy

/** Runs the model on pictures of CameraX, and gives its first output to `show`, on the analyser's thread. */
class Camera(private val model: Model, private val show: (FloatArray) -> Unit) : ImageAnalysis.Analyzer {
    override fun analyze(image: ImageProxy) {
        val picture = upright(image)
        image.close() // the next picture may come
        show(model.predict(pixels(picture)).first())
    }

    /** The square in the middle, turned as the phone is held. */
    private fun upright(image: ImageProxy): Bitmap {
        val picture = image.toBitmap()
        val side = minOf(picture.width, picture.height)
        val turn = Matrix().apply { postRotate(image.imageInfo.rotationDegrees.toFloat()) }
        val (left, top) = Pair((picture.width - side) / 2, (picture.height - side) / 2)
        return Bitmap.createBitmap(picture, left, top, side, side, turn, true)
    }
}
