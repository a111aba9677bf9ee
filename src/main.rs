//! The `fanfare` command; see [`fanfare::cli`].

use tikv_jemallocator::Jemalloc;

/// Chosen by measurement; an application that embeds the library chooses its own.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> std::process::ExitCode {
    fanfare::cli::main()
}
