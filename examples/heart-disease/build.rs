//! Tells the binary the commit that it was built from.

include!("../../version.rs");

fn main() {
    tell_commit(&["examples/heart-disease/src"]);
}
