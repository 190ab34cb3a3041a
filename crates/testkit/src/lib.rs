//! For tests: a database per test, fixed clock, scripted upstream, named seams, the whole stack.
