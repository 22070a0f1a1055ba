//! Periodic tasks. Two workers declare the same ones, and every tick runs once.
//!
//!     cargo run --example periodic

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use yadtq::{Client, Context, Error, Missed, Periodic, Worker, WorkerBuilder};

type Lines = UnboundedSender<String>;

/// The id names the tick.
#[yadtq::task]
async fn sweep(ctx: Context, what: String) -> Result<(), yadtq::MissingState> {
    // While the workers stop, nobody receives any more.
    let _ = ctx.state::<Lines>()?.send(format!("{} sweeps the {what}", ctx.id()));
    Ok(())
}

#[yadtq::task]
async fn report(region: String) -> String {
    format!("report of {region}")
}

fn worker(client: &Client, lines: &Lines) -> WorkerBuilder {
    let often = Periodic::every("sweep", Duration::from_secs(1), sweep.call("floor".to_owned()));
    let nightly = Periodic::cron("nightly-report", "0 3 * * *", report.call("eu".to_owned()));
    Worker::builder()
        .client(client)
        .register(sweep)
        .register(report)
        .state(lines.clone())
        .periodic(often.missed(Missed::Skip))
        .periodic(nightly.time_zone("Europe/Berlin"))
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::embedded();
    let (lines, mut received) = unbounded_channel();
    let first = worker(&client, &lines).start().await?;
    let second = worker(&client, &lines).start().await?;
    for _ in 0..2 {
        println!("{}", received.recv().await.expect("the sender lives"));
    }
    first.stop().await?;
    println!("{}", received.recv().await.expect("the sender lives"));

    for periodic in client.admin().periodics().await? {
        println!("{}: {} runs {}", periodic.name, periodic.schedule, periodic.task);
    }
    second.stop().await
}
