//! What a container wrote, as the engine keeps it.

use std::io;

use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::TryStreamExt;

use super::Docker;
use super::engine::{EngineError, QUICK_LIMIT};
use crate::driver::Logs;
use crate::model::WorkspaceId;

impl Docker {
    /// `None`: there is no container.
    pub(super) async fn logs_of(
        &self,
        id: &WorkspaceId,
        lines: usize,
        follow: bool,
    ) -> Result<Option<Logs>, EngineError> {
        let Some(container) = self.locate(id).await? else { return Ok(None) };
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).follow(follow);
        let options = options.tail(&lines.to_string()).build();
        let client = self.engine().client(QUICK_LIMIT)?;
        let pieces = client.logs(container.as_str(), Some(options));
        Ok(Some(Box::pin(pieces.map_ok(|piece| piece.into_bytes()).map_err(io::Error::other))))
    }
}
