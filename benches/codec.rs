//! The cost of bytes: what every message pays, whatever else it does.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;
use std::ops::ControlFlow;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidegate::internal::{Event, Frames, Inbound, Payload, decode, encode, parse_header, reply, unmask};
use tidegate::proto::{Ack, AckStatus, Envelope, MessageType, Push, SendMessageReq, push, send_message_req};
use tidegate_loadtest::frame::around as client_frame;

const MASK: [u8; 4] = [0x5a, 0x13, 0xc6, 0x2f];
const MAX_MESSAGE: usize = 128 * 1024;

fn send(text: usize) -> Envelope {
    reply(
        "",
        Payload::Send(SendMessageReq {
            conversation_id: "p2p:1000001:1000002".into(),
            client_msg_id: "0b7c1b0e-6a0c-4a5c-9d6b-1f1d2a3b4c5d".into(),
            r#type: MessageType::Text.into(),
            content: Some(send_message_req::Content::TextContent("x".repeat(text))),
            ..SendMessageReq::default()
        }),
    )
}

fn pushed(text: usize) -> Envelope {
    reply(
        "",
        Payload::Push(Push {
            conversation_id: "p2p:1000001:1000002".into(),
            server_msg_id: "7123456789012345678".into(),
            seq: 4711,
            epoch: 1_790_000_000_000_000,
            from_user_id: 1_000_001,
            from_device_id: "phone".into(),
            client_msg_id: "0b7c1b0e-6a0c-4a5c-9d6b-1f1d2a3b4c5d".into(),
            r#type: MessageType::Text.into(),
            content: Some(push::Content::TextContent("x".repeat(text))),
            server_time: 1_790_000_000_000,
            ..Push::default()
        }),
    )
}

fn ack() -> Envelope {
    reply(
        "",
        Payload::Ack(Ack {
            client_msg_id: "0b7c1b0e-6a0c-4a5c-9d6b-1f1d2a3b4c5d".into(),
            server_msg_id: "7123456789012345678".into(),
            seq: 4711,
            status: AckStatus::Stored.into(),
            conversation_id: "p2p:1000001:1000002".into(),
            server_time: 1_790_000_000_000,
            level: 2,
            ..Ack::default()
        }),
    )
}

fn bytes_of(envelope: &Envelope) -> Vec<u8> {
    prost::Message::encode_to_vec(envelope)
}

fn headers(c: &mut Criterion) {
    let mut group = c.benchmark_group("header");
    for (name, size) in [("heartbeat", 0), ("text-64", 64), ("text-1024", 1024), ("text-70000", 70_000)] {
        let frame = if size == 0 { client_frame(&[]) } else { client_frame(&bytes_of(&send(size))) };
        group.bench_function(name, |b| b.iter(|| parse_header(black_box(&frame))));
    }
    group.finish();
}

fn unmasking(c: &mut Criterion) {
    let mut group = c.benchmark_group("unmask");
    for size in [1, 64, 1024, 65_536] {
        let mut payload = vec![7_u8; size];
        group.throughput(Throughput::Bytes(u64::try_from(size).unwrap_or(u64::MAX)));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| unmask(black_box(&mut payload), black_box(MASK)));
        });
    }
    group.finish();
}

/// From bytes of the socket to decoded envelopes, as a connection does it.
fn receiving(c: &mut Criterion) {
    let mut group = c.benchmark_group("receive");
    let heartbeat = client_frame(&[]);
    let text = client_frame(&bytes_of(&send(64)));
    for (name, input) in
        [("heartbeat", heartbeat), ("text-64", text.clone()), ("text-64-times-16", text.repeat(16))]
    {
        group.throughput(Throughput::Bytes(u64::try_from(input.len()).unwrap_or(u64::MAX)));
        group.bench_function(name, |b| {
            let mut inbound = Inbound::default();
            b.iter_batched_ref(
                || input.clone(),
                |input| {
                    let mut frames = 0_u32;
                    let flow = inbound.feed(input, MAX_MESSAGE, |event| {
                        if let Event::Message(message) = event {
                            for frame in Frames::new(message).flatten() {
                                frames += 1;
                                if !frame.is_empty() {
                                    let _ = black_box(decode(frame));
                                }
                            }
                        }
                        ControlFlow::Continue(())
                    });
                    (frames, flow.is_ok())
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn envelopes(c: &mut Criterion) {
    for (name, envelope) in
        [("send-64", send(64)), ("push-64", pushed(64)), ("push-1024", pushed(1024)), ("ack", ack())]
    {
        let bytes = bytes_of(&envelope);
        c.bench_function(&format!("decode/{name}"), |b| b.iter(|| decode(black_box(&bytes))));
        c.bench_function(&format!("encode/{name}"), |b| b.iter(|| encode(black_box(&envelope))));
    }
}

criterion_group!(benches, headers, unmasking, receiving, envelopes);
criterion_main!(benches);
