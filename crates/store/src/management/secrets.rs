//! Sealed documents of the builtin backend, and machine-made material. The store holds ciphertext only.

use crate::door::Door;
use crate::error::StoreError;
use crate::open::Store;
use crate::sql::Tx;

/// A sealed document by its ref.
pub async fn document(tx: &mut Tx<'_>, reference: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let row = tx.first("SELECT sealed FROM sealed_documents WHERE ref = $1", vec![reference.into()]).await?;
    row.map(|row| row.bytes(0)).transpose()
}

impl Door<'_> {
    /// Writes a sealed document.
    pub async fn put_document(&mut self, reference: &str, sealed: Vec<u8>) -> Result<(), StoreError> {
        let now = self.now();
        self.execute(
            "INSERT INTO sealed_documents (ref, sealed, updated_at) VALUES ($1, $2, $3) \
             ON CONFLICT (ref) DO UPDATE SET sealed = $2, updated_at = $3",
            vec![reference.into(), sealed.into(), now.into()],
        )
        .await
        .map(|_| ())
    }

    /// Removes a sealed document.
    pub async fn drop_document(&mut self, reference: &str) -> Result<(), StoreError> {
        self.execute("DELETE FROM sealed_documents WHERE ref = $1", vec![reference.into()]).await.map(|_| ())
    }
}

impl Store {
    /// Machine-made material by name: what is stored, or `made` now. Two processes that start at once agree on one value.
    pub async fn machine_secret(&self, name: &'static str, made: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        let now = self.now().await?;
        self.plain_write(move |tx| {
            Box::pin(async move {
                tx.execute(
                    "INSERT INTO machine_secrets (name, sealed, created_at) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING",
                    vec![name.into(), made.into(), now.into()],
                )
                .await?;
                let row = tx.first("SELECT sealed FROM machine_secrets WHERE name = $1", vec![name.into()]).await?;
                row.ok_or_else(|| StoreError::inconsistent("machine_secrets", "name", "vanished"))?.bytes(0)
            })
        })
        .await
    }

    /// The first bytes of everything sealed, each once: they name the keys that must be here for a start.
    pub async fn sealed_heads(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        self.read(|tx| {
            Box::pin(async move {
                let sql = "SELECT substr(sealed, 1, 12) FROM machine_secrets UNION SELECT substr(sealed, 1, 12) FROM signing_keys \
                           UNION SELECT substr(sealed, 1, 12) FROM sealed_documents";
                tx.all(sql, vec![]).await?.iter().map(|row| row.bytes(0)).collect()
            })
        })
        .await
    }
}
