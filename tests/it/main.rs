//! What rmxd promises, shown from the outside.

#[cfg(test)]
mod interop;
