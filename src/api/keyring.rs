//! Every token that opens the API.
//!
//! They come from three places: the file in the state directory, the configuration, and the store,
//! where those are kept that admins make by calls. A change counts from the next call on, and is
//! durable before it is answered.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::SystemTime;

use serde::Serialize;
use subtle::ConstantTimeEq;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::caller::Caller;
use super::token_file::TokenFile;
use crate::clock::Clock;
use crate::secrets::{self, SecretError};
use crate::store::{Store, StoreError, TokenRecord};
use crate::token::{Grant, Scope, Token, TokenHash, TokenName};

/// Tokens in the store: one for each script and person of a large team.
const STORED_MAX: usize = 1_000;

/// See the module's head.
pub struct Keyring {
    file: TokenFile,
    configured: RwLock<Arc<BTreeMap<TokenName, Grant>>>,
    stored: RwLock<BTreeMap<TokenName, TokenRecord>>,
    store: Arc<dyn Store>,
    /// Held while one is made, changed or revoked.
    changes: tokio::sync::Mutex<()>,
}

/// Where a token is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = TokenSource)]
#[serde(rename_all = "lowercase")]
pub(super) enum Source {
    /// In the state directory.
    File,
    /// In the configuration.
    Config,
    /// In the store, by a call.
    Api,
}

/// A token as admins see it.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) name: TokenName,
    pub(super) scope: Scope,
    /// `None`: nobody knows.
    pub(super) created_at: Option<SystemTime>,
    pub(super) source: Source,
}

/// A new token, and what is known of it.
pub(super) struct Made {
    pub(super) token: Token,
    pub(super) listed: Listed,
}

/// Why a token was not made, changed or revoked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChangeError {
    #[error("there is a token {0:?} already; rotate it, or choose another name")]
    Taken(String),
    #[error("there is no token {0:?}")]
    Unknown(String),
    #[error("the token {0:?} is one of the configuration; change it there")]
    Configured(String),
    #[error("the token {0:?} is the one in the state directory, which stays; rotate it instead")]
    OfStateDir(String),
    #[error("there are {STORED_MAX} tokens already; revoke one that nobody uses")]
    TooMany,
    #[error(transparent)]
    NotKept(#[from] StoreError),
    #[error(transparent)]
    NotWritten(#[from] SecretError),
}

impl Keyring {
    /// The tokens of these three places. Blocks for a moment; for the start.
    pub async fn open(
        file: PathBuf,
        configured: BTreeMap<TokenName, Grant>,
        store: Arc<dyn Store>,
    ) -> Result<Self, StoreError> {
        let mut stored = BTreeMap::new();
        for token in store.tokens().await? {
            if configured.contains_key(&token.name) {
                let name = &token.name;
                tracing::warn!("the token {name} of the configuration hides one of the same name");
            }
            stored.insert(token.name.clone(), token);
        }
        Ok(Self {
            file: TokenFile::open(file),
            configured: RwLock::new(Arc::new(configured)),
            stored: RwLock::new(stored),
            store,
            changes: tokio::sync::Mutex::default(),
        })
    }

    /// The configuration has these from now on.
    pub fn configure(&self, tokens: BTreeMap<TokenName, Grant>) {
        *self.configured.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tokens);
    }

    fn configured(&self) -> Arc<BTreeMap<TokenName, Grant>> {
        self.configured.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whose token that is, if it is one. Takes as long for a wrong token as for a right one:
    /// hashes are compared, each in constant time and all of them.
    pub(super) async fn find(&self, presented: &str) -> Option<Caller> {
        self.find_by_hash(&TokenHash::of(presented)).await
    }

    /// Whose token has that hash, if any has. The same holds.
    pub(super) async fn find_by_hash(&self, hash: &TokenHash) -> Option<Caller> {
        let mut found = None;
        let mut compare = |name: &TokenName, known: &TokenHash, scope: &Scope| {
            if known.ct_eq(hash).into() {
                found = Some(Caller { name: name.clone(), scope: scope.clone() });
            }
        };
        if let Some(known) = self.file.current().await {
            compare(&TokenName::of_state_dir(), &known.hash, &Scope::Admin);
        }
        let configured = self.configured();
        for (name, grant) in &*configured {
            compare(name, &grant.hash, &grant.scope);
        }
        for (name, record) in &*self.read_stored() {
            if !configured.contains_key(name) {
                compare(name, &record.hash, &record.scope);
            }
        }
        found
    }

    /// All of them, by name.
    pub(super) async fn all(&self) -> Vec<Listed> {
        let file = self.file.current().await.map(|known| Listed {
            name: TokenName::of_state_dir(),
            scope: Scope::Admin,
            created_at: Some(known.since),
            source: Source::File,
        });
        let mut all: Vec<Listed> = file.into_iter().collect();
        let configured = self.configured();
        all.extend(configured.iter().map(|(name, grant)| Listed {
            name: name.clone(),
            scope: grant.scope.clone(),
            created_at: None,
            source: Source::Config,
        }));
        let stored = self.read_stored();
        let counting = stored.values().filter(|record| !configured.contains_key(&record.name));
        all.extend(counting.map(Listed::from));
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// Makes a token.
    pub(super) async fn add(
        self: Arc<Self>,
        name: TokenName,
        scope: Scope,
    ) -> Result<Made, ChangeError> {
        to_the_end(async move {
            let _turn = self.changes.lock().await;
            let taken = name == TokenName::of_state_dir()
                || self.configured().contains_key(&name)
                || self.read_stored().contains_key(&name);
            if taken {
                return Err(ChangeError::Taken(name.to_string()));
            }
            if self.read_stored().len() >= STORED_MAX {
                return Err(ChangeError::TooMany);
            }
            self.keep_new(name, scope).await
        })
        .await
    }

    /// Makes a new token of that name; the one before is none any more.
    pub(super) async fn rotate(self: Arc<Self>, name: TokenName) -> Result<Made, ChangeError> {
        to_the_end(async move {
            let _turn = self.changes.lock().await;
            if name == TokenName::of_state_dir() {
                let (token, known) = self.file.rotate().await?;
                let (scope, created_at) = (Scope::Admin, Some(known.since));
                let listed = Listed { name, scope, created_at, source: Source::File };
                return Ok(Made { token, listed });
            }
            let record = self.stored(&name)?;
            self.keep_new(name, record.scope).await
        })
        .await
    }

    /// Forgets a token.
    pub(super) async fn revoke(self: Arc<Self>, name: TokenName) -> Result<(), ChangeError> {
        to_the_end(async move {
            let _turn = self.changes.lock().await;
            if name == TokenName::of_state_dir() {
                return Err(ChangeError::OfStateDir(name.to_string()));
            }
            self.stored(&name)?;
            self.store.delete_token(&name).await?;
            self.stored.write().unwrap_or_else(PoisonError::into_inner).remove(&name);
            Ok(())
        })
        .await
    }

    async fn keep_new(&self, name: TokenName, scope: Scope) -> Result<Made, ChangeError> {
        let token = Token::new(secrets::random()?);
        let created_at = Clock::MACHINE.date_of(Instant::now());
        let record = TokenRecord { name, hash: token.hash(), scope, created_at };
        self.store.put_token(record.clone()).await?;
        let listed = Listed::from(&record);
        let mut stored = self.stored.write().unwrap_or_else(PoisonError::into_inner);
        stored.insert(record.name.clone(), record);
        Ok(Made { token, listed })
    }

    /// The token of that name in the store, where it can be changed.
    fn stored(&self, name: &TokenName) -> Result<TokenRecord, ChangeError> {
        if self.configured().contains_key(name) {
            return Err(ChangeError::Configured(name.to_string()));
        }
        let record = self.read_stored().get(name).cloned();
        record.ok_or_else(|| ChangeError::Unknown(name.to_string()))
    }

    fn read_stored(&self) -> RwLockReadGuard<'_, BTreeMap<TokenName, TokenRecord>> {
        self.stored.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<&TokenRecord> for Listed {
    fn from(record: &TokenRecord) -> Self {
        Self {
            name: record.name.clone(),
            scope: record.scope.clone(),
            created_at: Some(record.created_at),
            source: Source::Api,
        }
    }
}

/// Whoever asked may hang up. What is stored must be known here all the same, so the work is not
/// theirs to drop.
async fn to_the_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::Sqlite;

    #[tokio::test]
    async fn whoever_hangs_up_leaves_no_token_half_revoked() {
        let name = format!("frostgate-keyring-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        let store = Arc::new(Sqlite::open(&directory).unwrap());
        let opened = Keyring::open(directory.join("token"), BTreeMap::new(), store.clone()).await;
        let keyring = Arc::new(opened.unwrap());
        let name = TokenName::parse("ci").unwrap();
        let made = keyring.clone().add(name.clone(), Scope::Read).await.unwrap();
        assert!(keyring.find(made.token.text()).await.is_some());

        let mut revocation = Box::pin(keyring.clone().revoke(name));
        assert!(futures_util::poll!(&mut revocation).is_pending());
        drop(revocation);
        let deadline = Instant::now() + Duration::from_secs(20);
        while keyring.find(made.token.text()).await.is_some() {
            assert!(Instant::now() < deadline, "it opens although it was revoked");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(store.tokens().await.unwrap().is_empty());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
