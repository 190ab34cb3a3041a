//! Sealed things: provider documents, client secrets, zone signing keys, the deployment's verifier key.
//!
//! The path through it: [`Custody::open`] checks at start that a key here opens what is stored, and loads the verifier key; then
//! documents are sealed on their way into the store's door and opened on their way out of a snapshot. The store sees ciphertext.
//!
//! What must never happen: plain material at rest or in a log, a value opened for another purpose than it was sealed for, a start
//! with a key that opens nothing, a silent change to another backend.

use std::collections::BTreeMap;
use std::sync::Arc;

use caracal_core::id::{ApplicationId, Id as _, ProviderId, SigningKeyId, ZoneId};
use caracal_crypto::keys::SigningKey;
use caracal_crypto::mac::MacKey;
use caracal_crypto::seal::{Keks, SealError, SealRandom};
use caracal_host::World;
use caracal_store::{Store, StoreError};
use zeroize::Zeroizing;

/// The only secret backend of this build; remote ones keep the same envelope elsewhere.
pub const BUILTIN: &str = "builtin";

const SIGNING_KEY: &str = "caracal/secrets/zoneSigningKey";
const VERIFIER_KEY: &str = "caracal/secrets/verifierKey";

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// The envelope does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was opened is not what it should be.
    #[error("sealed material is not readable: {0}")]
    Unreadable(&'static str),
    /// The start is not possible; says what to do.
    #[error("{0}")]
    Start(String),
}

/// The secrets of a provider, in memory for as long as they are needed.
pub type SecretDocument = BTreeMap<String, Zeroizing<String>>;

/// Who seals and opens. Cheap to clone.
#[derive(Clone)]
pub struct Custody {
    inner: Arc<Inner>,
}

struct Inner {
    keks: Keks,
    world: World,
    verifier: MacKey,
}

impl Custody {
    /// Checks that a key here opens what is stored, and loads (or makes) the verifier key.
    pub async fn open(store: &Store, keks: Keks, world: World, backend: &str) -> Result<Self, CustodyError> {
        if backend != BUILTIN {
            return Err(CustodyError::Start(format!("CARACAL_SECRET_BACKEND is {backend:?}; this build has only {BUILTIN}")));
        }
        let unknown = store.sealed_heads().await?.iter().filter(|head| !keks.knows(head)).count();
        if unknown > 0 {
            return Err(CustodyError::Start(format!(
                "what is stored is sealed under {unknown} other key(s) than SECRET_STORE_KEK: give the key this database was made with, \
                 and SECRET_STORE_KEK_PREVIOUS while some of it is sealed under the one before"
            )));
        }
        let made = Zeroizing::new(world.random::<32>());
        let sealed = keks.seal(VERIFIER_KEY.as_bytes(), made.as_slice(), &random(&world))?;
        let kept = store.machine_secret("verifierKey", sealed).await?;
        let verifier = MacKey::from_bytes(&keks.open(VERIFIER_KEY.as_bytes(), &kept)?);
        Ok(Self { inner: Arc::new(Inner { keks, world, verifier }) })
    }

    /// The key of the hashes that stand for generated secrets.
    pub fn verifier_key(&self) -> &MacKey {
        &self.inner.verifier
    }

    /// Seals a value for a purpose.
    pub fn seal(&self, purpose: &str, value: &[u8]) -> Result<Vec<u8>, CustodyError> {
        Ok(self.inner.keks.seal(purpose.as_bytes(), value, &random(&self.inner.world))?)
    }

    /// Opens a value that was sealed for a purpose.
    pub fn open_sealed(&self, purpose: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
        Ok(self.inner.keks.open(purpose.as_bytes(), sealed)?)
    }

    /// A new signing key and its sealed form.
    pub fn new_signing_key(&self) -> Result<(SigningKeyId, Vec<u8>), CustodyError> {
        let id = self.inner.world.mint();
        let key = SigningKey::generate(id).map_err(|_| CustodyError::Unreadable("no key could be generated"))?;
        let der = key.to_pkcs8().map_err(|_| CustodyError::Unreadable("the key cannot be written"))?;
        Ok((id, self.seal(&signing_purpose(id), &der)?))
    }

    /// A signing key from its row.
    pub fn signing_key(&self, id: SigningKeyId, sealed: &[u8]) -> Result<SigningKey, CustodyError> {
        let der = self.open_sealed(&signing_purpose(id), sealed)?;
        SigningKey::from_pkcs8(id, &der).map_err(|_| CustodyError::Unreadable("signing key"))
    }

    /// The secrets of a provider's sealed document; none when there is no document.
    pub fn provider_secrets(
        &self,
        zone: ZoneId,
        provider: ProviderId,
        sealed: Option<&[u8]>,
    ) -> Result<SecretDocument, CustodyError> {
        let Some(sealed) = sealed else { return Ok(SecretDocument::new()) };
        let open = self.open_sealed(&provider_ref(zone, provider), sealed)?;
        serde_json::from_slice(&open).map_err(|_| CustodyError::Unreadable("provider document"))
    }

    /// The sealed document of a provider's secrets.
    pub fn seal_provider(&self, zone: ZoneId, provider: ProviderId, secrets: &SecretDocument) -> Result<Vec<u8>, CustodyError> {
        let text = Zeroizing::new(serde_json::to_vec(secrets).map_err(|_| CustodyError::Unreadable("provider document"))?);
        self.seal(&provider_ref(zone, provider), &text)
    }
}

/// Where a provider's secrets are kept, and what they are bound to.
pub fn provider_ref(zone: ZoneId, provider: ProviderId) -> String {
    format!("zones/{zone}/providers/{provider}/secretConfig")
}

/// Where an Application's secret is kept, and what it is bound to.
pub fn client_secret_ref(zone: ZoneId, application: ApplicationId) -> String {
    format!("zones/{zone}/applications/{application}/clientSecret")
}

fn signing_purpose(id: SigningKeyId) -> String {
    // The row's id: a fixed text alone would allow rows to be swapped.
    format!("{SIGNING_KEY}/{}", caracal_core::digest::hex(&id.to_bytes()))
}

fn random(world: &World) -> SealRandom {
    SealRandom { dek: Zeroizing::new(world.random()), dek_nonce: world.random(), value_nonce: world.random() }
}
