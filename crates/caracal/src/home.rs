//! The directory of a stack: who holds it, what is in it, and the secrets made at its first start (`cli.md` 4.1, 8).

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use caracal_host::Entropy;

use crate::failure::Failure;

/// Where a stack keeps its things.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    root: PathBuf,
}

impl Home {
    /// `--data-dir`, else `CARACAL_HOME`, else the user's data directory.
    pub(crate) fn resolve(flag: Option<&Path>) -> Result<Self, Failure> {
        let root = if let Some(dir) = flag {
            dir.to_owned()
        } else if let Some(home) = crate::env::non_empty("CARACAL_HOME") {
            PathBuf::from(home)
        } else if let Some(data) = crate::env::non_empty("XDG_DATA_HOME") {
            PathBuf::from(data).join("caracal")
        } else {
            let user = crate::env::non_empty("HOME")
                .ok_or_else(|| Failure::usage("no home directory: set HOME, or say where with --data-dir DIR"))?;
            let user = PathBuf::from(user);
            if cfg!(target_os = "macos") {
                user.join("Library/Application Support/caracal")
            } else {
                user.join(".local/share/caracal")
            }
        };
        let root = std::path::absolute(&root).map_err(|e| Failure::io("resolve", &root, &e))?;
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Databases and spool.
    pub(crate) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Generated keys and tokens, one file each.
    pub(crate) fn secrets(&self) -> PathBuf {
        crate::env::non_empty("CARACAL_SECRETS_DIR").map_or_else(|| self.root.join("secrets"), PathBuf::from)
    }

    /// Extra certificate authorities for outbound TLS; read when present.
    pub(crate) fn extra_ca(&self) -> PathBuf {
        self.root.join("ca/extra-ca.pem")
    }

    /// The operator's env file.
    pub(crate) fn env_file(&self) -> PathBuf {
        self.root.join("caracal.env")
    }

    /// What a detached stack prints.
    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("up.log")
    }

    fn lock_file(&self) -> PathBuf {
        self.root.join(".lock")
    }

    /// Fails, and changes nothing, when a stack could not live here.
    pub(crate) fn probe(&self) -> Result<(), Failure> {
        let mut nearest = self.root.as_path();
        while !nearest.exists() {
            nearest = nearest.parent().ok_or_else(|| Failure::start(format!("no such directory: {}", self.root.display())))?;
        }
        let refused = |e: &std::io::Error| {
            Failure::start(format!("cannot write to {}: {e}; choose another place with --data-dir DIR", nearest.display()))
        };
        if !nearest.is_dir() {
            return Err(Failure::start(format!(
                "{} is not a directory; choose another place with --data-dir DIR",
                nearest.display()
            )));
        }
        let trial = nearest.join(format!(".caracal-write-test-{}", std::process::id()));
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&trial).map_err(|e| refused(&e))?;
        fs::remove_file(&trial).map_err(|e| refused(&e))
    }

    /// Creates the directories (0700) and takes the lock; the lock is held as long as the value lives.
    pub(crate) fn take(&self) -> Result<Lock, Failure> {
        for dir in [self.root.clone(), self.data(), self.root.join("control"), self.root.join("ca")] {
            private_dir(&dir)?;
        }
        let path = self.lock_file();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|e| Failure::io("open", &path, &e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                return Err(Failure::start(format!(
                    "{} is in use by process {}; stop it with `caracal down --data-dir {}` or choose another --data-dir",
                    self.root.display(),
                    holder.trim(),
                    self.root.display()
                )));
            }
            Err(TryLockError::Error(e)) => return Err(Failure::io("lock", &path, &e)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(|e| Failure::io("write", &path, &e))?;
        writeln!(file, "{}", std::process::id()).map_err(|e| Failure::io("write", &path, &e))?;
        Ok(Lock { _file: file })
    }

    /// The process that holds the lock, or `None` when nothing runs here.
    pub(crate) fn holder(&self) -> Result<Option<u32>, Failure> {
        let path = self.lock_file();
        let mut file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Failure::io("open", &path, &e)),
        };
        match file.try_lock() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.read_to_string(&mut text).map_err(|e| Failure::io("read", &path, &e))?;
                Ok(text.trim().parse().ok())
            }
            Err(TryLockError::Error(e)) => Err(Failure::io("lock", &path, &e)),
        }
    }

    /// Refuses a directory that a newer binary has used, and leaves this one's mark.
    pub(crate) fn mark_version(&self) -> Result<(), Failure> {
        let path = self.root.join("runtime.json");
        if let Ok(text) = fs::read_to_string(&path)
            && let Some(found) =
                serde_json::from_str::<serde_json::Value>(&text).ok().and_then(|v| v["version"].as_str().map(str::to_owned))
            && newer(&found, crate::version::VERSION)
        {
            return Err(Failure::start(format!(
                "{} was last used by caracal {found}, newer than this {}; use that binary, or delete {} to go back on your own risk",
                self.root.display(),
                crate::version::VERSION,
                path.display()
            )));
        }
        let text = format!("{}\n", serde_json::json!({"version": crate::version::VERSION}));
        write_private(&path, text.as_bytes())
    }
}

/// Held while a process owns the directory; the system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// A secret that is generated once and kept: its file, the variable it stands for, its length in bytes.
pub(crate) struct Managed {
    /// File name under `secrets/`.
    pub(crate) file: &'static str,
    /// Variable that overrides it.
    pub(crate) variable: &'static str,
    /// Random bytes; the file holds them as lower-case hex.
    pub(crate) bytes: usize,
}

const fn managed(file: &'static str, variable: &'static str) -> Managed {
    Managed { file, variable, bytes: 32 }
}

/// Every managed secret (`cli.md` 8).
pub(crate) const MANAGED: &[Managed] = &[
    managed("caracalAdminToken", "CARACAL_ADMIN_TOKEN"),
    managed("caracalCoordinatorToken", "CARACAL_COORDINATOR_TOKEN"),
    managed("metricsBearer", "METRICS_BEARER"),
    managed("secretStoreKek", "SECRET_STORE_KEK"),
    managed("auditHmacKey", "AUDIT_HMAC_KEY"),
    managed("streamsHmacKey", "STREAMS_HMAC_KEY"),
    managed("revocationStreamsHmacKey", "REVOCATION_STREAMS_HMAC_KEY"),
    managed("idempotencyHmacKey", "IDEMPOTENCY_HMAC_KEY"),
    managed("gatewayStsHmacKey", "GATEWAY_STS_HMAC_KEY"),
    managed("auditAdminToken", "AUDIT_ADMIN_TOKEN"),
    managed("stsAdminToken", "STS_ADMIN_TOKEN"),
];

/// What provisioning did: each variable with its value, and which files were made now.
pub(crate) struct Provisioned {
    /// Variable and value of each managed secret that was not given from outside.
    pub(crate) values: Vec<(&'static str, String)>,
    /// Files created by this start.
    pub(crate) created: usize,
}

/// Makes the missing secrets and reads the others. A non-empty file is never changed; a variable given from outside writes nothing.
pub(crate) fn provision(dir: &Path, given: impl Fn(&str) -> bool, entropy: &dyn Entropy) -> Result<Provisioned, Failure> {
    private_dir(dir)?;
    let mut done = Provisioned { values: Vec::new(), created: 0 };
    for secret in MANAGED {
        // Whoever gives the streams key gives it for revocations too, unless they say otherwise (`streams.md` 3).
        let rides = secret.variable == "REVOCATION_STREAMS_HMAC_KEY" && given("STREAMS_HMAC_KEY");
        if given(secret.variable) || rides {
            continue;
        }
        let path = dir.join(secret.file);
        let kept = match fs::read_to_string(&path) {
            Ok(text) => text.trim_end().to_owned(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Failure::io("read", &path, &e)),
        };
        let value = if kept.is_empty() {
            let mut bytes = vec![0; secret.bytes];
            entropy.fill(&mut bytes);
            let text = hex::encode(&bytes);
            write_private(&path, text.as_bytes())?;
            done.created += 1;
            text
        } else {
            kept
        };
        done.values.push((secret.variable, value));
    }
    Ok(done)
}

/// A directory that only its owner may enter.
pub(crate) fn private_dir(dir: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| Failure::io("create", dir, &e))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(|e| Failure::io("protect", dir, &e))
}

/// Writes a file that only its owner may read, whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let partial = path.with_extension("partial");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().map_err(|e| Failure::io("write", path, &e))
}

/// Whether version `a` comes after `b`; `-rc.N` sorts before its release, text that is no version never does.
fn newer(a: &str, b: &str) -> bool {
    fn parts(text: &str) -> Option<(Vec<u64>, Option<String>)> {
        let (numbers, suffix) = text.split_once('-').map_or((text, None), |(n, s)| (n, Some(s.to_owned())));
        Some((numbers.split('.').map(|n| n.parse().ok()).collect::<Option<_>>()?, suffix))
    }
    let (Some((a, a_suffix)), Some((b, b_suffix))) = (parts(a), parts(b)) else { return false };
    match a.cmp(&b) {
        std::cmp::Ordering::Equal => match (a_suffix, b_suffix) {
            (None, Some(_)) => true,
            (Some(a), Some(b)) => a > b,
            _ => false,
        },
        order => order.is_gt(),
    }
}

#[cfg(test)]
mod tests {
    use caracal_host::SystemEntropy;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn secrets_are_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = dir.path().join("secrets");
        let first = provision(&secrets, |_| false, &SystemEntropy).unwrap();
        assert_eq!(first.created, MANAGED.len());
        assert_eq!((mode(&secrets), mode(&secrets.join("secretStoreKek"))), (0o700, 0o600));
        let again = provision(&secrets, |_| false, &SystemEntropy).unwrap();
        assert_eq!((again.created, again.values), (0, first.values));
    }

    #[test]
    fn what_is_given_from_outside_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let done = provision(dir.path(), |name| name == "STREAMS_HMAC_KEY", &SystemEntropy).unwrap();
        assert!(done.values.iter().all(|(name, _)| !name.contains("STREAMS")), "the revocation key follows the streams key");
        assert!(!dir.path().join("streamsHmacKey").exists());
    }

    #[test]
    fn an_empty_file_is_filled_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("auditHmacKey"), "").unwrap();
        provision(dir.path(), |_| false, &SystemEntropy).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("auditHmacKey")).unwrap().len(), 64);
    }

    #[test]
    fn one_process_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(&dir.path().join("stack"))).unwrap();
        assert_eq!(home.holder().unwrap(), None);
        let lock = home.take().unwrap();
        assert_eq!(home.holder().unwrap(), Some(std::process::id()));
        assert!(home.take().unwrap_err().to_string().contains("in use by process"));
        drop(lock);
        home.take().unwrap();
    }

    #[test]
    fn a_newer_mark_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(dir.path())).unwrap();
        fs::write(dir.path().join("runtime.json"), r#"{"version":"99.0.0"}"#).unwrap();
        assert!(home.mark_version().unwrap_err().to_string().contains("99.0.0"));
        assert!(fs::read_to_string(dir.path().join("runtime.json")).unwrap().contains("99.0.0"));
        assert!(newer("1.0.0", "1.0.0-rc.2") && newer("1.0.0-rc.2", "1.0.0-rc.1") && !newer("1.0.0-rc.1", "1.0.0"));
    }
}
