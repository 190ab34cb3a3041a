//! Labels of a Session: what role an agent plays. Policy reads them as stored, never from a request.

/// Most labels of one Session.
pub const MAX_LABELS: usize = 32;
/// Longest label, in characters.
pub const MAX_LABEL: usize = 128;
