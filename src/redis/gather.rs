//! Commands of many connections that come at the same time: while a few round
//! trips are under way, what comes waits for the next one and shares it.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use redis::{Cmd, RedisResult, Value};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::client::Client;
use super::error::RedisError;

/// Most commands of one round trip: few enough for long answers.
const MOST: usize = 64;
/// Most round trips at a time.
const ROUNDS: usize = 2;

/// What became of a command.
pub(super) type Answer = Result<RedisResult<Value>, RedisError>;

/// Who asked.
type Asker = oneshot::Sender<Answer>;

#[derive(Debug, Default)]
struct Waiting {
    asked: VecDeque<(Cmd, Asker)>,
    /// How many make round trips until nothing waits.
    serving: usize,
}

/// See above.
#[derive(Debug, Default)]
pub(super) struct Gather(Mutex<Waiting>);

impl Gather {
    /// Has a command wait for the next round trip; whether the caller is to
    /// have it made.
    fn add(&self, command: Cmd) -> (oneshot::Receiver<Answer>, bool) {
        let (done, answer) = oneshot::channel();
        let mut waiting = self.0.lock();
        waiting.asked.push_back((command, done));
        let is_needed = waiting.serving < ROUNDS;
        waiting.serving += usize::from(is_needed);
        (answer, is_needed)
    }

    /// What is waited for, `MOST` at most. Nothing = whoever asks serves no more.
    fn take(&self) -> (Vec<Cmd>, Vec<Asker>) {
        let mut waiting = self.0.lock();
        // A command that nobody waits for any more is not to come late.
        waiting.asked.retain(|(_, asker)| !asker.is_closed());
        let many = waiting.asked.len().min(MOST);
        waiting.serving -= usize::from(many == 0);
        waiting.asked.drain(..many).unzip()
    }
}

/// Whoever still waits when it ends is told that there is no answer.
struct Serving {
    gather: Arc<Gather>,
    is_done: bool,
}

impl Drop for Serving {
    fn drop(&mut self) {
        if !self.is_done {
            let mut waiting = self.gather.0.lock();
            waiting.asked.clear();
            waiting.serving -= 1;
        }
    }
}

impl Client {
    /// Runs a command in a round trip with others that were asked for like
    /// this, within twice the deadline of one. It has to be idempotent.
    pub(crate) async fn gathered(&self, command: impl Into<Cmd>) -> Answer {
        let (answer, is_needed) = self.gather().add(command.into());
        if is_needed {
            tokio::spawn(serve(self.clone()));
        }
        match timeout(2 * self.timeout(), answer).await {
            Ok(answer) => answer.unwrap_or(Err(RedisError::Down)),
            Err(_) => Err(RedisError::Timeout),
        }
    }
}

async fn serve(client: Client) {
    let mut serving = Serving { gather: Arc::clone(client.gather()), is_done: false };
    loop {
        let (commands, askers) = serving.gather.take();
        if commands.is_empty() {
            serving.is_done = true;
            return;
        }
        // Who has ceased to wait is none the worse for it.
        match client.pipeline(commands).await {
            Ok(results) => askers.into_iter().zip(results).for_each(|(asker, result)| {
                let _ = asker.send(Ok(result));
            }),
            Err(error) => askers.into_iter().for_each(|asker| {
                let _ = asker.send(Err(error.clone()));
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::redis::testing::TestRedis;

    #[tokio::test]
    async fn each_gets_his_own_answer() {
        let redis = TestRedis::start();
        let client = redis.client().await;
        let ask = |n: usize| {
            let mut command = redis::cmd(if n == 7 { "NOSUCH" } else { "ECHO" });
            command.arg(n);
            client.gathered(command)
        };
        let answers = join_all((0..5 * MOST).map(ask)).await;
        for (n, answer) in answers.into_iter().enumerate() {
            match answer.unwrap() {
                Ok(Value::BulkString(echo)) => assert_eq!(echo, n.to_string().into_bytes()),
                other => assert!(n == 7 && other.is_err(), "{n}: {other:?}"),
            }
        }
        assert_eq!(client.gather().0.lock().serving, 0);
        ask(3).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_sent() {
        let gather = Gather::default();
        let (given_up, _) = gather.add(redis::cmd("SET"));
        let (waiting, _) = gather.add(redis::cmd("PING"));
        drop(given_up);
        assert_eq!(gather.take().0.len(), 1);
        assert_eq!(gather.0.lock().serving, 2);
        assert!(gather.take().0.is_empty());
        assert_eq!(gather.0.lock().serving, 1);
        assert!(waiting.await.is_err());
    }

    #[tokio::test]
    async fn whoever_waits_for_one_who_is_gone_is_told() {
        let mut redis = TestRedis::start();
        let client = redis.client().await;
        let waits = client.gather().add(redis::cmd("PING"));
        assert!(waits.1);
        let serving = Serving { gather: Arc::clone(client.gather()), is_done: false };
        drop(serving);
        assert!(waits.0.await.is_err());
        client.gathered(redis::cmd("PING")).await.unwrap().unwrap();
        redis.stop();
        assert!(client.gathered(redis::cmd("PING")).await.is_err());
    }
}
