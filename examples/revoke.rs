//! Revokes tasks before they run, and while they run.
//!
//!     cargo run --example revoke

use std::time::Duration;

use yadtq::{Client, Context, Error, Revocation, Status, Worker};

#[yadtq::task]
async fn send_newsletter(issue: u32) -> String {
    format!("issue {issue} is out")
}

/// A long task should stop when it is asked to. If it does not, it is dropped after the worker's `revoke_grace`.
#[yadtq::task]
async fn crawl(ctx: Context, site: String) -> Result<String, String> {
    println!("crawling {site}");
    tokio::select! {
        () = ctx.cancelled() => Err("stopped half way".to_owned()),
        () = tokio::time::sleep(Duration::from_secs(3_600)) => Ok(site),
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::embedded();
    client.install()?;

    let newsletter = send_newsletter.delay(7).await?;
    assert_eq!(newsletter.revoke().await?, Revocation::Revoked);

    let worker = Worker::builder()
        .register(send_newsletter)
        .register(crawl)
        .revoke_grace(Duration::from_secs(1))
        .start()
        .await?;
    println!("the newsletter: {}", newsletter.await.expect_err("it was revoked"));

    let crawling = crawl.delay("example.org".to_owned()).await?;
    while crawling.status().await? != Status::Running {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if let Revocation::Asked { worker } = crawling.revoke().await? {
        println!("asked worker {worker}");
    }
    println!("the crawler: {}", crawling.await.expect_err("it was revoked"));
    worker.stop().await
}
