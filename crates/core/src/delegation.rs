//! To be filled: see the crate's page.
