//! The Gateway: a protected reverse proxy; nothing reaches an upstream that was not decided.
