//! The rules of a governed call that need neither time nor network: values in, values out.

pub mod credential;
pub mod headers;
pub mod path;
pub mod trace;
