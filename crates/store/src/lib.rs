//! State on SQLite and PostgreSQL: the write door, the path's journal, cascades, leases, the freshness fence.
