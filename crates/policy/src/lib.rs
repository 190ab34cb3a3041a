//! The decision contract: native, total, explains itself; data documents through Rego.
