//! One record of a segment: u32 length of the frame, u32 CRC-32C, the frame, u16 length of the signature, the signature.
//! Numbers are little-endian. The checksum covers everything of the record but itself, the length included.

use super::SpoolError;

/// The longest frame: what Audit takes at most, with room to spare.
pub const MAX_FRAME: usize = 1 << 20;
const MAX_SIG: usize = 128;
const HEAD: usize = 8;

/// An event as it is kept: the exact bytes that were signed, and their signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The exact `data`.
    pub data: Vec<u8>,
    /// Hex HMAC; empty without a key.
    pub sig: String,
}

impl Record {
    /// How many bytes it takes in a segment.
    pub fn size(&self) -> usize {
        HEAD + self.data.len() + 2 + self.sig.len()
    }

    /// Appends its bytes. An empty frame is no event, and would make a run of zeros look like less than damage.
    pub(super) fn encode(&self, into: &mut Vec<u8>) -> Result<(), SpoolError> {
        let plain = self.sig.bytes().all(|b| b.is_ascii_hexdigit());
        if self.data.is_empty() || self.data.len() > MAX_FRAME || self.sig.len() > MAX_SIG || !plain {
            return Err(SpoolError::Unfit);
        }
        let length = u32::try_from(self.data.len()).map_err(|_| SpoolError::Unfit)?.to_le_bytes();
        let sig_length = u16::try_from(self.sig.len()).map_err(|_| SpoolError::Unfit)?.to_le_bytes();
        into.extend_from_slice(&length);
        into.extend_from_slice(&checksum(length, &self.data, sig_length, self.sig.as_bytes()).to_le_bytes());
        into.extend_from_slice(&self.data);
        into.extend_from_slice(&sig_length);
        into.extend_from_slice(self.sig.as_bytes());
        Ok(())
    }

    /// The record at a place and where the next one begins; `None` when no whole, sound record begins here.
    pub(super) fn decode(bytes: &[u8], at: usize) -> Option<(Self, usize)> {
        let rest = bytes.get(at..)?;
        let length = *rest.first_chunk::<4>()?;
        let crc = u32::from_le_bytes(*rest.get(4..)?.first_chunk::<4>()?);
        let size = usize::try_from(u32::from_le_bytes(length)).ok().filter(|size| (1..=MAX_FRAME).contains(size))?;
        let data = rest.get(HEAD..HEAD + size)?;
        let sig_length = *rest.get(HEAD + size..)?.first_chunk::<2>()?;
        let sig_size = usize::from(u16::from_le_bytes(sig_length));
        let end = HEAD + size + 2 + sig_size;
        let sig = rest.get(HEAD + size + 2..end).filter(|sig| sig.len() <= MAX_SIG && sig.iter().all(u8::is_ascii_hexdigit))?;
        if checksum(length, data, sig_length, sig) != crc {
            return None;
        }
        Some((Self { data: data.to_vec(), sig: String::from_utf8(sig.to_vec()).ok()? }, at + end))
    }
}

fn checksum(length: [u8; 4], data: &[u8], sig_length: [u8; 2], sig: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&length), data);
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &sig_length), sig)
}

/// What a segment that nobody writes any more holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sound {
    /// Whole records to the end.
    Whole,
    /// Whole records up to here, then one that was never finished.
    Torn(usize),
    /// Damage that begins here with sound records behind it: which bytes are sound, in order.
    Damaged(Vec<std::ops::Range<usize>>),
}

/// Reads a whole segment. Nothing sound behind a bad place: that was the last write, torn. Something sound: damage.
pub(super) fn inspect(bytes: &[u8]) -> Sound {
    let mut ranges = Vec::new();
    let mut begin = 0;
    let mut at = 0;
    while at < bytes.len() {
        if let Some((_, next)) = Record::decode(bytes, at) {
            at = next;
            continue;
        }
        if at > begin {
            ranges.push(begin..at);
        }
        match (at + 1..bytes.len()).find(|&next| Record::decode(bytes, next).is_some()) {
            Some(next) => {
                begin = next;
                at = next;
            }
            // The torn end of a damaged segment goes with the damage.
            None if ranges.len() > 1 || begin > 0 => return Sound::Damaged(ranges),
            None => return Sound::Torn(at),
        }
    }
    if begin == 0 {
        return Sound::Whole;
    }
    ranges.push(begin..at);
    Sound::Damaged(ranges)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(text: &str) -> Record {
        Record { data: text.as_bytes().to_vec(), sig: "ab".repeat(32) }
    }

    fn segment(count: usize) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for n in 0..count {
            record(&format!("{{\"id\":{n}}}")).encode(&mut bytes).unwrap();
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn a_segment_cut_anywhere_keeps_every_whole_record() {
        let (bytes, ends) = segment(4);
        for cut in 0..=bytes.len() {
            let kept = *ends.iter().filter(|end| **end <= cut).max().unwrap();
            let expected = if kept == cut { Sound::Whole } else { Sound::Torn(kept) };
            assert_eq!(inspect(&bytes[..cut]), expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_flipped_byte_costs_its_record_and_no_other() {
        let (bytes, ends) = segment(4);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            let hit = ends.iter().rposition(|end| *end <= at).unwrap();
            let expected = match hit {
                0 => Sound::Damaged(std::iter::once(ends[1]..ends[4]).collect()),
                3 => Sound::Torn(ends[3]),
                n => Sound::Damaged(vec![0..ends[n], ends[n + 1]..ends[4]]),
            };
            assert_eq!(inspect(&bad), expected, "byte {at}");
        }
    }

    #[test]
    fn what_is_no_event_is_not_taken() {
        let mut bytes = Vec::new();
        assert!(Record { data: vec![], sig: String::new() }.encode(&mut bytes).is_err());
        assert!(Record { data: vec![0; MAX_FRAME + 1], sig: String::new() }.encode(&mut bytes).is_err());
        assert!(Record { data: vec![1], sig: "not hex".to_owned() }.encode(&mut bytes).is_err());
        assert!(bytes.is_empty());
        assert_eq!(inspect(&[0; 64]), Sound::Torn(0));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(data in proptest::collection::vec(any::<u8>(), 1..300), signed in any::<bool>()) {
            let record = Record { data, sig: if signed { "0f".repeat(32) } else { String::new() } };
            let mut bytes = vec![7];
            record.encode(&mut bytes).unwrap();
            prop_assert_eq!(bytes.len(), 1 + record.size());
            prop_assert_eq!(Record::decode(&bytes, 1), Some((record, bytes.len())));
        }

        #[test]
        fn no_bytes_upset_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = inspect(&bytes);
        }
    }
}
