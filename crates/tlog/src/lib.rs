//! Evidence formats anyone can check: leaves, Merkle tree, signed notes, tiles, proofs, the verifier.
