//! The store closed, for good or for another process to open.

use super::{Store, StoreError};
use crate::types::{ConversationId, GatewayRef};

impl Store {
    /// Shortens a close that is to come; serving goes on meanwhile.
    pub(crate) async fn prepare_close(&self) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.prepare_close().await,
            _ => Ok(()),
        }
    }

    /// Finishes what was asked for and lets go of its files, for another
    /// process to open them; returns whether there are any. Nothing is
    /// answered until [`Self::resume`].
    pub(crate) async fn suspend(&self) -> Result<bool, StoreError> {
        match self {
            Self::Embedded(store) => store.suspend().await.map(|()| true),
            _ => Ok(false),
        }
    }

    /// Goes on after [`Self::suspend`].
    pub(crate) async fn resume(&self) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.resume().await,
            _ => Ok(()),
        }
    }

    /// Interest that the process before this one had registered, where it went
    /// with it.
    pub(crate) fn register(&self, gateway: &GatewayRef, groups: &[ConversationId]) {
        if let Self::Embedded(store) = self {
            store.register(gateway, groups);
        }
    }

    /// Finishes what was asked for; afterwards nothing is answered.
    pub(crate) async fn close(&self) {
        if let Self::Embedded(store) = self {
            store.close().await;
        }
    }
}
