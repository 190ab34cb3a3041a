//! The STS: token exchange, mandates, JWKS; the one place where authority is granted.
