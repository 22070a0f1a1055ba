//! A client process for the tests: sends `add` tasks, awaits all of them at once, and checks every sum. With `unique` it
//! sends them one by one, each under a key of its own, and awaits none.

use std::{env, process::ExitCode, time::Duration};

use yadtq::{Call, Client};

#[tokio::main]
async fn main() -> ExitCode {
    let count: i64 = env::args().nth(1).and_then(|text| text.parse().ok()).expect("the first argument is a count");
    let client = Client::from_env().await.expect("the environment is right");
    if env::args().nth(2).is_some_and(|text| text == "unique") {
        for i in 0..count {
            let call = Call::<i64>::named("add", (i, 7)).unique(format!("key {i}"), Duration::from_secs(3_600));
            println!("{}", call.send(&client).await.expect("kafka acknowledged").id());
        }
        return ExitCode::SUCCESS;
    }
    let calls = (0..count).map(|i| Call::<i64>::named("add", (i, 7)));
    let handles = client.send_many(calls).await;
    println!("sent {}", handles.len());
    let mut wrong = 0;
    for (i, handle) in (0..count).zip(handles) {
        match handle.expect("kafka acknowledged").await {
            Ok(sum) if sum == i + 7 => {}
            other => {
                eprintln!("task {i}: {other:?}");
                wrong += 1;
            }
        }
    }
    println!("wrong {wrong}");
    ExitCode::from(u8::from(wrong > 0))
}
