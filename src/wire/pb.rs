//! The generated protobuf types of `proto/tidegate/v1`.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::as_conversions,
    clippy::indexing_slicing
)]

include!(concat!(env!("OUT_DIR"), "/tidegate.v1.rs"));
