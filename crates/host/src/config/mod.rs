//! Typed configuration with the origin of each value (`cli.md` 4 and 10).
//!
//! A service declares its [`Key`]s in one const table and builds its `Config` with a [`Reader`]:
//!
//! ```
//! use caracal_host::config::{Key, Run, Service, Sources};
//!
//! const MAX_REQUEST_BYTES: Key = Key::new("MAX_REQUEST_BYTES", "Largest request body, in bytes.").default("10485760");
//!
//! let sources = Sources::builder(Run::Serve).environment([("CARACAL_MODE", "dev"), ("MAX_REQUEST_BYTES", "4096")]).build().unwrap();
//! let mut reader = sources.reader(Service::Gateway);
//! let max = reader.integer::<usize>(&MAX_REQUEST_BYTES, 1..=u64::MAX);
//! let config = reader.finish((|| Some(max?))()).unwrap();
//! assert_eq!(config, 4096);
//! ```
//!
//! Every error is collected, so that one start shows all of them; each names the variable, what is wrong and what to do, and none
//! shows a secret.

mod common;
mod error;
mod key;
mod parse;
mod reader;
mod sources;

pub use caracal_core::error::Service;
pub use common::{COMMON, Common, Tls};
pub use error::{ConfigError, ConfigErrors};
pub use key::{Key, Mode, Run, SERVICES, default_port};
pub use parse::{parse_bool, parse_duration};
pub use reader::Reader;
pub use sources::{Builder, Origin, Sources, Value};
