//! Sealed documents, their backends, KEK rotation.
