//! Reads the command line and calls one file of `cli/`.

fn main() {}
