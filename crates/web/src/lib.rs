//! Inbound HTTP: listeners, limits, request ids, renderings of a refusal, extractors, health, metrics.
