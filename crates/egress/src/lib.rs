//! Outbound HTTP through one guard.
//!
//! A request names a URL; [`guard`] reads it strictly and says whether its host may be asked for; [`resolve`] turns the host into
//! addresses; [`address`] judges every one of them; [`connect`] dials an address that was judged, so that no second resolution can
//! lead elsewhere; [`client`] pools those connections and sends. [`fetch`] reads a bounded answer.
//!
//! What must never happen here: a dial to an address that was not judged, a redirect that is followed, a proxy from the environment,
//! a request sent twice, an answer read without bound, an error text that tells a caller where we dial.

pub mod address;
pub mod client;
pub mod connect;
pub mod error;
pub mod fetch;
pub mod guard;
pub mod resolve;
pub mod trust;

pub use client::{Client, Settings};
pub use error::{DialError, SendError};
pub use fetch::{Bounds, FetchError};
pub use guard::{Guard, Profile, Target};
pub use resolve::{Resolve, SystemResolver};
pub use trust::Trust;
