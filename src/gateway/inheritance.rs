//! Taking over from another process: everything of it, up to its commit.

use std::time::Instant;

use tracing::debug;

use super::GatewayError;
use super::assemble::Assembled;
use super::build::Gateway;
use crate::handover::{HandoverError, Newcomer, Staged, stage};

/// What was taken over and not set off yet.
pub(super) struct Inheritance {
    pub(super) newcomer: Newcomer,
    pub(super) staged: Staged,
    pub(super) at: Instant,
}

impl Gateway {
    /// Everything of the process before this one, up to its commit.
    pub(super) async fn inherit(
        &self,
        mut newcomer: Newcomer,
    ) -> Result<(Assembled, Option<Inheritance>), GatewayError> {
        match self.stage(&mut newcomer).await {
            Ok((assembled, staged)) => {
                Ok((assembled, Some(Inheritance { newcomer, staged, at: Instant::now() })))
            }
            Err(error) => {
                newcomer.refuse(&error).await;
                Err(error)
            }
        }
    }

    async fn stage(&self, newcomer: &mut Newcomer) -> Result<(Assembled, Staged), GatewayError> {
        let failed = |error: HandoverError| GatewayError::Setup(format!("handover: {error}"));
        let (assembled, arrived) = if self.config.redis.is_some() {
            let assembled = self.assemble().await?;
            newcomer.ready().await.map_err(failed)?;
            let arrived = newcomer.receive(Some(assembled.context.pipeline.ports())).await.map_err(failed)?;
            (assembled, arrived)
        } else {
            // The files of the store are the other process's until it has sent
            // the state.
            newcomer.ready().await.map_err(failed)?;
            let arrived = newcomer.receive(None).await.map_err(failed)?;
            let since = Instant::now();
            let assembled = self.assemble().await?;
            debug!(took = ?since.elapsed(), "the store is open");
            (assembled, arrived)
        };
        let staged = stage(arrived, &assembled.context, &assembled.permits).await.map_err(failed)?;
        newcomer.staged(staged.connections(), staged.digest).await.map_err(failed)?;
        Ok((assembled, staged))
    }
}
