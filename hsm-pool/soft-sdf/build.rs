//! Once loaded, the library stays: threads that have called it run its thread-local destructors when they end, which may
//! be after a caller has closed it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
