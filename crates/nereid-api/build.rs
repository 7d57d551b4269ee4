//! Compiles the gRPC protocol; in pure Rust, so that no `protoc` has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/inference.proto");
    let files = protox::compile(["proto/inference.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        // Tensors as bytes are slices of the message and are not copied.
        .bytes(".inference")
        .compile_fds(files)?;
    Ok(())
}
