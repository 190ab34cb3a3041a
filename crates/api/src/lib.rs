//! The API: zones, applications, providers, resources, policies, approvals, admin audit.
