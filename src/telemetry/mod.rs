//! Metrics and logs.
//!
//! Every metric name and label value is written once, in [`Metrics`]; the
//! rest of the program holds the cached handles, so a count costs
//! nanoseconds. No label carries a user, a conversation, an address or free
//! text. `gateway` installs both sides and renders `/metrics`.

mod counting;
mod labels;
mod log;
mod metrics;
mod presence;
mod recorder;

pub(crate) use labels::{EventRefusal, FrameKind, HintCause, Refusal, ResyncCause};
pub use log::install_log;
#[cfg(feature = "postgres")]
pub(crate) use metrics::SinkMetrics;
pub(crate) use metrics::{RouteMetrics, carry_counter, metrics};
pub(crate) use recorder::{Recorder, install_metrics};
