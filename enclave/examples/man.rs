//! Prints the enclave's man page. An example, so that the generator is no part
//! of the trusted binary.

use clap::CommandFactory;
use sealfold_enclave::arguments::Arguments;

fn main() -> std::io::Result<()> {
    clap_mangen::Man::new(Arguments::command()).render(&mut std::io::stdout())
}
