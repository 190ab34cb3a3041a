//! The chain beside the tree (`audit.md` 7.2, 7.3): content hash, the one before, and an HMAC that only this deployment can make.

use caracal_core::digest::sha256;
use caracal_crypto::mac::{MacKey, chain_link};

/// The content hash of a leaf.
pub fn content(leaf: &[u8]) -> [u8; 32] {
    sha256(&[leaf])
}

/// The HMAC over an entry and the one before; nothing for the first.
pub fn link(key: &MacKey, content: &[u8; 32], previous: Option<&[u8; 32]>) -> [u8; 32] {
    chain_link(key, content, previous)
}

/// Ties what an emitter signed to its entry, where its bytes cannot be made again: their digest, the signature, and the entry.
pub fn data_mac(key: &MacKey, content: &[u8; 32], signature: Option<&[u8; 32]>, data_hash: &[u8; 32]) -> [u8; 16] {
    let signature = signature.map_or(&b""[..], |signature| signature);
    let tag = key.tag(&[b"caracal.audit.data/1\n", content, data_hash, signature]);
    let mut mac = [0; 16];
    mac.copy_from_slice(&tag[..16]);
    mac
}

#[cfg(test)]
mod tests {
    use caracal_core::digest::hex;

    use super::*;
    use crate::canonical::Canonical;
    use crate::leaf::tests::{ORIGIN, example};
    use crate::leaf::{Place, leaf_bytes};
    use crate::tree::leaf_hash;

    #[test]
    fn the_chain_of_the_worked_example() {
        let key = MacKey::from_hex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f").unwrap();
        let wanted = [
            (
                784,
                "254d7f3918a150d0d918ae6b89b5d73daf002de3c2d458ec83b0e7fe28a3bc12",
                "0a611b426622186858afe9f03b38623ffa2728dd0c7309e5f64f114f60c67aef",
                "5305712d0a18d60e62a21dd4919e8ee2a9c344e9e057da16242050149dc6d512",
            ),
            (
                722,
                "579b1e8cc3fd04428fec4d8efa06f794dbd54d585237f9fe38cb39bdd95cf961",
                "de27bd182a3ed189548832b042b8605a157f1beef1f4f48946c56195d415b661",
                "e8c765a61f9189ccdcf9b744b7d7fe09e8652a4d7a9d79ba0d027455c5b21efa",
            ),
            (
                731,
                "cdeeab06664a89fb5277be41775f027eb40713b37c9854dad1487971498593a8",
                "60c2b02596be156303d358f84fee8e835703a0ac1d2ef11fc30f80dcaa009dbb",
                "5bb9115cf4d1d19a4d1e46c1dce2035e533e59eea823c0dad857c3b421b11e66",
            ),
        ];
        let mut previous = None;
        for (i, (event, ingested_at, secret)) in example().into_iter().enumerate() {
            let seq = i as u64 + 1;
            let leaf = leaf_bytes(&Canonical::of(&event), Place { origin: ORIGIN, seq, ingested_at }, &secret);
            let this = content(&leaf);
            let got = (leaf.len(), hex(&leaf_hash(&leaf)), hex(&this), hex(&link(&key, &this, previous.as_ref())));
            let (bytes, leaf, content, hmac) = wanted[i];
            assert_eq!(got, (bytes, leaf.into(), content.into(), hmac.into()), "seq {seq}");
            previous = Some(this);
        }
    }
}
