//! How aegisd is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |name: &str| std::env::var(name).unwrap_or_default();
    if target("CARGO_CFG_TARGET_OS") == "linux" && target("CARGO_CFG_TARGET_ENV") == "gnu" {
        // A list of 31,000 places that the loader reads once and that stays in memory
        // becomes a bitmap (DT_RELR): 0.7 MB. glibc reads it since 2.36, which is older
        // than any systemd that is supported.
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
