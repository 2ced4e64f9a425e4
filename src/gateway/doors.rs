//! The two listeners, which can be closed for a while: the kernel keeps who
//! knocks meanwhile.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::net;
use crate::session::{self, Context};

/// Where clients come in.
#[derive(Debug)]
pub(super) struct ClientDoor {
    socket: TcpListener,
    context: Arc<Context>,
    permits: Arc<Semaphore>,
    accepting: Option<(CancellationToken, JoinHandle<()>)>,
}

impl ClientDoor {
    /// A listening socket; nobody is let in yet.
    pub(super) const fn new(socket: TcpListener, context: Arc<Context>, permits: Arc<Semaphore>) -> Self {
        Self { socket, context, permits, accepting: None }
    }

    /// Lets clients in.
    pub(super) fn open(&mut self) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.socket.try_clone()?)?;
        let (context, stop) = (Arc::clone(&self.context), CancellationToken::new());
        let accepting =
            net::accept(listener, Arc::clone(&self.permits), stop.clone(), move |stream, peer, permit| {
                tokio::spawn(session::establish(Arc::clone(&context), stream, peer, permit));
            });
        self.accepting = Some((stop, tokio::spawn(accepting)));
        Ok(())
    }

    /// Lets nobody in, until it is opened again.
    pub(super) async fn close(&mut self) {
        if let Some((stop, accepting)) = self.accepting.take() {
            stop.cancel();
            let _ = accepting.await;
        }
    }

    /// The socket, for another process.
    pub(super) fn copy(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }
}

/// Where operators come in.
#[derive(Debug)]
pub(super) struct AdminDoor {
    socket: TcpListener,
    router: Router,
    serving: Option<(CancellationToken, JoinHandle<()>)>,
}

impl AdminDoor {
    /// A listening socket; nobody is let in yet.
    pub(super) const fn new(socket: TcpListener, router: Router) -> Self {
        Self { socket, router, serving: None }
    }

    /// Lets operators in.
    pub(super) fn open(&mut self) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.socket.try_clone()?)?;
        let stop = CancellationToken::new();
        let serve =
            axum::serve(listener, self.router.clone()).with_graceful_shutdown(stop.clone().cancelled_owned());
        let serving = tokio::spawn(async move {
            if let Err(error) = serve.await {
                error!(%error, "admin listener ended");
            }
        });
        self.serving = Some((stop, serving));
        Ok(())
    }

    /// Lets nobody in, until it is opened again; what was asked for is still
    /// answered.
    pub(super) fn close(&mut self) {
        if let Some((stop, _)) = &self.serving {
            stop.cancel();
        }
    }

    /// Waits until whoever is in has got his answer.
    pub(super) async fn answered(&mut self, limit: Duration) {
        if let Some((stop, serving)) = self.serving.take() {
            stop.cancel();
            let _ = timeout(limit, serving).await;
        }
    }

    /// The socket, for another process.
    pub(super) fn copy(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }
}
