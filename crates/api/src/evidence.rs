//! Reading evidence (`api.md` 20). Filled in with the ledger's reads.
