//! The program: everything is in [`bitcost::cli`].

fn main() -> std::process::ExitCode {
    bitcost::cli::main()
}
