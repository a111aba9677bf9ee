//! The `fanfare` command; see [`fanfare::cli`].

fn main() -> std::process::ExitCode {
    fanfare::cli::main()
}
