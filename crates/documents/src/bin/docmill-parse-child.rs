//! The sandboxed child of this crate's integration tests; production runs `docmill parse-child`, the same function.

fn main() -> std::process::ExitCode {
    docmill_documents::child_main()
}
