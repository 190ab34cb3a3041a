//! Outbound HTTP through one guard: address rules, resolution, the checked address is the dialled one.
