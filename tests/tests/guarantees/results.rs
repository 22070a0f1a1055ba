//! How long results are kept.

use std::{collections::HashMap, time::Duration};

use redis::AsyncCommands as _;
use yadtq::{Call, Error};
use yadtq_tests::tasks;

use super::Bench;

const HOUR: i64 = 3_600_000;

#[tokio::test(flavor = "multi_thread")]
async fn the_call_decides_then_the_task_then_the_worker() {
    let bench = Bench::new("results").await;
    let _worker = bench.ready_worker().await;
    let mut redis = bench.redis().await;
    let brief = || tasks::brief.call(7);
    let seconds = Duration::from_secs;
    let cases: [(Call<u8>, i64, bool); 5] = [
        (Call::named("echo", [7]), 24 * HOUR, true),
        (brief(), 2 * HOUR, true),
        (brief().result_ttl(seconds(10 * 3_600)), 10 * HOUR, true),
        (brief().result_ttl(seconds(60)), HOUR, true),
        (brief().ignore_result(), HOUR, false),
    ];
    for (i, (call, ttl, is_kept)) in cases.into_iter().enumerate() {
        let handle = call.send(&bench.client).await.expect("acknowledged");
        match handle.wait(Duration::from_secs(30)).await {
            Ok(7) if is_kept => {}
            Err(Error::NoResult { .. }) if !is_kept => {}
            other => panic!("case {i}: {other:?}"),
        }
        let key = bench.key(handle.id());
        let hash: HashMap<String, String> = redis.hgetall(&key).await.expect("a hash");
        assert_eq!(hash["status"], "success", "case {i}: {hash:?}");
        assert_eq!(hash.contains_key("result"), is_kept, "case {i}: {hash:?}");
        let left: i64 = redis.pttl(&key).await.expect("a time");
        assert!((ttl - 60_000..=ttl).contains(&left), "case {i}: {left} ms left of {ttl}");
    }
    let refused = brief().result_ttl(seconds(366 * 86_400)).send(&bench.client).await;
    assert!(matches!(refused, Err(Error::Config { .. })), "{refused:?}");
}
