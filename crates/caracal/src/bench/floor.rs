//! The floor: what the machine charges for the things that no governed call can do without.

use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use caracal_core::id::SigningKeyId;
use caracal_crypto::jws::{Parsed, sign};
use caracal_crypto::keys::SigningKey;
use caracal_host::World;

use super::times::Times;
use crate::failure::Failure;

/// A mandate's claims are about this long.
const PAYLOAD: usize = 700;
/// A group of a few decisions writes about this much.
const COMMIT: usize = 16 * 1024;

/// Microseconds of one ES256 signature and of one verification, on one thread, by our own JWS.
pub(super) fn es256(world: &World, long: Duration) -> Result<(f64, f64), Failure> {
    let told = |e: &dyn std::fmt::Display| Failure::start(format!("ES256 does not work here: {e}"));
    let key = SigningKey::generate(world.mint::<SigningKeyId>()).map_err(|e| told(&e))?;
    let public = key.public().map_err(|e| told(&e))?;
    let payload = format!("{{\"x\":\"{}\"}}", "x".repeat(PAYLOAD)).into_bytes();
    let token = sign(&key, &payload).map_err(|e| told(&e))?;
    let signing = each(world, long, || sign(&key, black_box(&payload)).is_ok());
    let verifying = each(world, long, || Parsed::of(black_box(&token)).is_ok_and(|parsed| parsed.verify([&public]).is_ok()));
    Ok((signing.ok_or_else(|| told(&"a signature failed"))?, verifying.ok_or_else(|| told(&"a verification failed"))?))
}

/// Microseconds of one run of `work`, which must succeed each time.
fn each(world: &World, long: Duration, work: impl Fn() -> bool) -> Option<f64> {
    let began = world.monotonic();
    let mut runs = 0_u32;
    loop {
        for _ in 0..64 {
            if !work() {
                return None;
            }
        }
        runs += 64;
        let took = world.monotonic().saturating_sub(began);
        if took >= long {
            return Some(took.as_secs_f64() * 1e6 / f64::from(runs));
        }
    }
}

/// How long an appended and synced write takes, in the directory the stack would use.
pub(super) fn synced_commits(world: &World, dir: &Path, long: Duration) -> Result<Times, Failure> {
    let path = dir.join("floor");
    let told = |e: std::io::Error| Failure::io("write", &path, &e);
    let mut file = File::create(&path).map_err(told)?;
    let page = vec![0x5a; COMMIT];
    let mut times = Times::default();
    let began = world.monotonic();
    while world.monotonic().saturating_sub(began) < long {
        let before = world.monotonic();
        file.write_all(&page).map_err(told)?;
        file.sync_data().map_err(told)?;
        times.add(world.monotonic().saturating_sub(before));
    }
    Ok(times)
}
