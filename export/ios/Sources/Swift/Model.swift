import @@{name}_c
import Foundation

/// An input or output: as many values, each `(integer - zeroPoint) * scale`.
public struct End {
    public let name: String
    public let size: Int
    public let scale: Float
    public let zeroPoint: Int
}

/// The model `@@model`. It has one memory: calls from several threads wait for each other.
public enum Model {
    /// Integers that the model takes and gives.
    public typealias Input = @@in_swift
    public typealias Output = @@out_swift

    /// What multiplies a raw value, and what is added to it, before it is quantised.
    public static let scale: Float = @@scale
    public static let offset: Float = @@offset

    public static let inputs = [@@inputs]
    public static let outputs = [@@outputs]

    /// The names of the classes, in the order of the outputs; empty if the model has none.
    public static let labels: [String] = [@@labels]

    private static let lock = NSLock()

    /// The outputs as real numbers, for the raw values of each input: @@raw.
    public static func predict(_ raw: [Float]...) -> [[Float]] {
        precondition(raw.count == inputs.count, "the model takes \(inputs.count) inputs, got \(raw.count)")
        let found = run(zip(raw, inputs).flatMap { quantized($0, $1) })
        var start = 0
        return outputs.map { end in
            let part = found[start..<start + end.size].map { Float(Int($0) - end.zeroPoint) * end.scale }
            start += end.size
            return part
        }
    }

    /// Run the model on integers, those of several inputs one after the other; so are the outputs.
    public static func run(_ integers: [Input]) -> [Output] {
        let (given, size) = (Int(@@{NAME}_INPUT_SIZE), Int(@@{NAME}_OUTPUT_SIZE))
        precondition(integers.count == given, "the model takes \(given) integers, got \(integers.count)")
        var found = [Output](repeating: 0, count: size)
        lock.lock()
        defer { lock.unlock() }
        @@{name}_invoke(integers, &found)
        return found
    }
@@reset_swift
    private static func quantized(_ raw: [Float], _ end: End) -> [Input] {
        precondition(raw.count == end.size, "the input \(end.name) takes \(end.size) values, got \(raw.count)")
        return raw.map { value in
            let real = value * scale + offset
            precondition(!real.isNaN, "the input \(end.name) has a value that is not a number")
            let step = (real / end.scale).rounded(.toNearestOrEven) + Float(end.zeroPoint)
            return Input(min(max(step, Float(Input.min)), Float(Input.max)))
        }
    }
}
