//! The Merkle tree of RFC 6962 over a log's leaves: its root from a frontier of a few hashes, and the proofs of RFC 9162.

use caracal_core::digest::sha256;

/// A hash of the tree.
pub type Hash = [u8; 32];

/// The hash of a leaf.
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    sha256(&[&[0], leaf])
}

/// The hash of two neighbours.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

/// The root of the tree without leaves.
pub fn empty_root() -> Hash {
    sha256(&[])
}

/// The hashes of the full subtrees at a tree's right edge, largest first: all that appending and the root need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

/// Stored bytes are no frontier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored frontier is malformed")]
pub struct BadFrontier;

impl Frontier {
    /// How many leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf by its hash.
    pub fn append(&mut self, leaf: Hash) {
        let mut node = leaf;
        // Each trailing one of the size is a full subtree as large as the one that just became full.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                node = node_hash(&left, &node);
            }
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// The root.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return empty_root() };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }

    /// As stored: size, then the hashes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.size.to_be_bytes().to_vec();
        bytes.extend(self.peaks.iter().flatten());
        bytes
    }

    /// From its stored form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadFrontier> {
        let (size, peaks) = bytes.split_first_chunk::<8>().ok_or(BadFrontier)?;
        let size = u64::from_be_bytes(*size);
        let (peaks, rest) = peaks.as_chunks::<32>();
        if !rest.is_empty() || u32::try_from(peaks.len()) != Ok(size.count_ones()) {
            return Err(BadFrontier);
        }
        Ok(Self { size, peaks: peaks.to_vec() })
    }
}

/// Whether a leaf is at `index` of the tree of `size` with this root (RFC 9162, 2.1.3.2).
pub fn included(leaf: &Hash, index: u64, size: u64, root: &Hash, proof: &[Hash]) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut node) = (index, size - 1, *leaf);
    for hash in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            node = node_hash(hash, &node);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            node = node_hash(&node, hash);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && node == *root
}

/// Whether the tree of `new` leaves extends that of `old` (RFC 9162, 2.1.4.2).
pub fn consistent(old: u64, old_root: &Hash, new: u64, new_root: &Hash, proof: &[Hash]) -> bool {
    if old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return proof.is_empty() && *old_root == empty_root();
    }
    let (first, rest) = if old.is_power_of_two() {
        (*old_root, proof)
    } else {
        match proof.split_first() {
            Some((first, rest)) => (*first, rest),
            None => return false,
        }
    };
    let (mut at, mut last) = (old - 1, new - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut was, mut is) = (first, first);
    for hash in rest {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            was = node_hash(hash, &was);
            is = node_hash(hash, &is);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            is = node_hash(&is, hash);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && was == *old_root && is == *new_root
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;
    use crate::canonical::Canonical;
    use crate::leaf::tests::{ORIGIN, example};
    use crate::leaf::{Place, leaf_bytes};

    fn hashes(text: &str) -> Vec<Hash> {
        text.split_whitespace().map(|h| hex::decode(h).unwrap().try_into().unwrap()).collect()
    }

    /// The root by the definition, for comparison.
    fn by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [one] => *one,
            many => {
                let split = many.len().next_power_of_two() / 2;
                node_hash(&by_definition(&many[..split]), &by_definition(&many[split..]))
            }
        }
    }

    #[test]
    fn the_tree_vectors() {
        let roots = hashes(
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 12403899e10d73557e1d37c2d1c3dc1686a9512034479aa25d06f1d80fc46069
             926054f28bc88651ef446709206587f183c49ae5b0f1393caaeb104e54fcc50f 49b3ac37087cacbed8e89716b70f93b0440b87e22a573e8fefe5a4d15e827862
             11170c8d45f48eb6ec89abd8dd8b6e07d153db5e70f8083841d6bb5e00f3f9f0 0f3371a238bdf07106b23d9bf71b21e0d71bb0595c46c90ca919093ae22da7ef
             f2287294adfc2d2bfb00639cfe2c55d169b193800ddfc7405d012c965df0ef89 9a01afc3a2f698368e6143b81124c362459916ce16f62ca7b96933fc862735ed",
        );
        let mut frontier = Frontier::default();
        for (size, root) in roots.iter().enumerate() {
            assert_eq!(frontier.root(), *root, "size {size}");
            assert_eq!(Frontier::from_bytes(&frontier.to_bytes()), Ok(frontier.clone()));
            frontier.append(leaf_hash(format!("L{size}").as_bytes()));
        }
        let leaf = |i: u64| leaf_hash(format!("L{i}").as_bytes());
        let proof = hashes(
            "5f75c8ec4c121aa6aeeb4c9f51b0a64c5eeb18d371ecd726951c2951ea5e55ba ef08b3dc633ce1cf72a84019e7f986a3a108cfb24c25e882aa6f082eb8e1ee0b
             4a162f4dc2edfae16ff7855506f6b85aedc7f93a188714781da83bf1bc6f7f9c",
        );
        assert!(included(&leaf(0), 0, 7, &roots[7], &proof));
        assert!(!included(&leaf(0), 1, 7, &roots[7], &proof) && !included(&leaf(0), 0, 7, &roots[7], &proof[1..]));
        let proof = hashes(
            "96c531d55db22b9b7d2057afc432b10a60a2f3812b8ecb5d3fb51b114fd12ab7 11170c8d45f48eb6ec89abd8dd8b6e07d153db5e70f8083841d6bb5e00f3f9f0",
        );
        assert!(included(&leaf(6), 6, 7, &roots[7], &proof));
        let three = hashes(
            "b20a512a48e53d216db8726dc737efe6a7e13ba4b681f9b26dcd08d1910259e3 5c610e9fef6cc0012ba3802aabf1a7c07564a103cc0caec27093f2089f25a890
             926054f28bc88651ef446709206587f183c49ae5b0f1393caaeb104e54fcc50f 4a162f4dc2edfae16ff7855506f6b85aedc7f93a188714781da83bf1bc6f7f9c",
        );
        assert!(consistent(3, &roots[3], 7, &roots[7], &three));
        assert!(!consistent(3, &roots[2], 7, &roots[7], &three) && !consistent(7, &roots[7], 3, &roots[3], &three));
        let four = hashes("4a162f4dc2edfae16ff7855506f6b85aedc7f93a188714781da83bf1bc6f7f9c");
        assert!(consistent(4, &roots[4], 7, &roots[7], &four));
        let six = hashes(
            "96c531d55db22b9b7d2057afc432b10a60a2f3812b8ecb5d3fb51b114fd12ab7 bf6cdfe93246ac91d0b0dbf0b52efc398ce1f514b5244d62319375d95ee5ba6c
             11170c8d45f48eb6ec89abd8dd8b6e07d153db5e70f8083841d6bb5e00f3f9f0",
        );
        assert!(consistent(6, &roots[6], 7, &roots[7], &six));
    }

    #[test]
    fn the_roots_of_the_worked_example() {
        let mut frontier = Frontier::default();
        let wanted = [
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
            "JU1/ORihUNDZGK5ribXXPa8ALePC1Fjsg7Dn/iijvBI=",
            "Ahh1MWlnEkRX4vscks46pEjgtTsvJhW7bRbE+ex4D/M=",
            "FPOqYcOsAWl5RSApoNj5VtP0L9hrwuBi1Q1tXtcIGa4=",
        ];
        for (i, (event, ingested_at, secret)) in example().into_iter().enumerate() {
            assert_eq!(STANDARD.encode(frontier.root()), wanted[i]);
            let place = Place { origin: ORIGIN, seq: i as u64 + 1, ingested_at };
            frontier.append(leaf_hash(&leaf_bytes(&Canonical::of(&event), place, &secret)));
        }
        assert_eq!(STANDARD.encode(frontier.root()), wanted[3]);
    }

    proptest! {
        #[test]
        fn the_frontier_gives_the_root_of_the_definition(size in 0_u32..200) {
            let leaves: Vec<Hash> = (0..size).map(|i| leaf_hash(&i.to_be_bytes())).collect();
            let mut frontier = Frontier::default();
            for leaf in &leaves {
                frontier.append(*leaf);
            }
            prop_assert_eq!(frontier.root(), by_definition(&leaves));
        }
    }
}
