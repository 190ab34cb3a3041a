//! Caracal decides what an agent may do before every action, proves what it did, and shuts it down at once.
fn main() {}
