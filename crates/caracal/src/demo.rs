//! `caracal demo`.

use crate::failure::Failure;

/// Shows it at work.
pub(crate) async fn run() -> Result<(), Failure> {
    Err(Failure::start("not yet"))
}
