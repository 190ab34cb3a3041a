//! Signing keys, compact JWS, HMAC schemes, sealing, secrets; no IO.
