//! Fetching images from their registries.
//!
//! A pull may take longer than a workspace may take to start, and the engine throws away what it
//! has when its caller leaves. So a pull belongs to a task of its own: whoever wants that image
//! waits for it, may give up waiting, and finds the image there at a later attempt.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::TryStreamExt;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::Shared;
use super::engine::EngineError;
use super::events::millis;
use super::names::ImageName;

/// Enough for the largest image over a slow line; a registry that hangs is given up after it.
const PULL_LIMIT: Duration = Duration::from_secs(60 * 60);
/// Pulls at the same time. The engine fetches the layers of each side by side as it is.
const PULLS_MAX: usize = 8;

/// What came of a pull; `None` while it goes on.
type Outcome = Option<Result<(), EngineError>>;

/// The pulls under way. Dropping it ends them.
#[derive(Default)]
pub(super) struct Pulls(Mutex<HashMap<ImageName, UnderWay>>);

struct UnderWay {
    outcome: watch::Receiver<Outcome>,
    _task: AbortOnDropHandle<()>,
}

impl Pulls {
    /// Returns when the image is as its registry has it.
    pub(super) async fn pull(
        &self,
        shared: &Arc<Shared>,
        image: &ImageName,
    ) -> Result<(), EngineError> {
        let mut outcome = self.join(shared, image)?;
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
            Err(_) => Err(EngineError::Interrupted("the pull was broken off".to_owned())),
        }
    }

    /// The pull of that image that is under way, or a new one.
    fn join(
        &self,
        shared: &Arc<Shared>,
        image: &ImageName,
    ) -> Result<watch::Receiver<Outcome>, EngineError> {
        let mut pulls = self.lock();
        pulls.retain(|_, pull| pull.outcome.borrow().is_none());
        if let Some(pull) = pulls.get(image) {
            return Ok(pull.outcome.clone());
        }
        if pulls.len() >= PULLS_MAX {
            let image = image.as_str();
            let reason = format!("{PULLS_MAX} other images are being pulled; {image} has to wait");
            return Err(EngineError::refused(reason));
        }
        let (done, outcome) = watch::channel(None);
        let (shared, wanted) = (Arc::clone(shared), image.clone());
        let task = tokio::spawn(async move {
            let pulled = pull(&shared, &wanted).await;
            done.send_replace(Some(pulled));
        });
        let task = AbortOnDropHandle::new(task);
        pulls.insert(image.clone(), UnderWay { outcome: outcome.clone(), _task: task });
        Ok(outcome)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ImageName, UnderWay>> {
        // No code that could panic half-way runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn pull(shared: &Shared, image: &ImageName) -> Result<(), EngineError> {
    let name = image.as_str();
    tracing::info!("pulling image {name}");
    let began = Instant::now();
    let (repository, tag) = image.parts();
    let options = CreateImageOptionsBuilder::new().from_image(repository).tag(tag).build();
    let pulled = shared.engine.call(PULL_LIMIT, |client| async move {
        client.create_image(Some(options), None, None).try_for_each(async |_| Ok(())).await
    });
    match pulled.await {
        Ok(()) => {
            let duration_ms = millis(began.elapsed());
            tracing::info!(duration_ms, "pulled image {name}");
            Ok(())
        }
        Err(EngineError::Refused { status, reason }) => {
            let reason = format!(
                "image {name} could not be pulled: {reason}; `docker pull {name}` where the engine \
                 is shows whether its registry can be reached and wants a login"
            );
            Err(EngineError::Refused { status, reason })
        }
        Err(error) => Err(error),
    }
}
