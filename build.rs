//! Compiles `proto/` to Rust without needing `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["envelope", "bus", "handover"].map(|name| format!("proto/tidegate/v1/{name}.proto"));
    let descriptors = protox::compile(files, ["proto"])?;
    let mut config = prost_build::Config::new();
    // Ordered maps: equal messages encode to equal bytes.
    config.bytes(["."]).btree_map(["."]).compile_fds(descriptors)?;
    let commit = std::process::Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .map_or_else(
            || "unknown".to_owned(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        );
    println!("cargo:rustc-env=TIDEGATE_COMMIT={commit}");
    println!("cargo:rerun-if-changed=.git/HEAD");
    Ok(())
}
