// swift-tools-version:5.5
import PackageDescription

let package = Package(
    name: "@@name",
    platforms: [.iOS(.v13), .macOS(.v10_15)],
    products: [.library(name: "@@{name}_kit", targets: ["@@{name}_kit"])],
    targets: [
        .target(name: "@@{name}_c"),
        .target(name: "@@{name}_kit", dependencies: ["@@{name}_c"]),
        .testTarget(
            name: "@@{name}_tests", dependencies: ["@@{name}_kit"], resources: [.copy("@@name.golden")]),
    ]
)
