import XCTest
import @@{name}_kit

/// Golden inputs and the outputs for them of @@reference, one after the other.
final class GoldenTests: XCTestCase {
    func testEveryIntegerIsAsInTheReference() throws {
        let place = try XCTUnwrap(Bundle.module.url(forResource: "@@name", withExtension: "golden"))
        let lines = try String(contentsOf: place, encoding: .utf8).split(separator: "\n").map { line in
            line.split(separator: " ").compactMap { Int($0) }
        }
        XCTAssertGreaterThan(lines.count, 1)
        for pair in stride(from: 0, to: lines.count, by: 2) {
            let found = Model.run(lines[pair].map { Model.Input($0) })
            XCTAssertEqual(found.map { Int($0) }, lines[pair + 1])
        }
    }
}
