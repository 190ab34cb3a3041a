//! What a process is made of: configuration with origins, clock, entropy, supervised jobs, telemetry, shutdown.
