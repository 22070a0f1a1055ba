//! Tasks that are sent by the clock. Two workers declare the same, and every tick runs once.
//!
//!     cargo run --example periodic

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use yadtq::{Client, Context, Error, Missed, Periodic, Worker, WorkerBuilder};

type Said = UnboundedSender<String>;

/// The id says which tick it is.
#[yadtq::task]
async fn sweep(ctx: Context, what: String) -> Result<(), yadtq::MissingState> {
    // Nobody listens any more while the workers stop.
    let _ = ctx.state::<Said>()?.send(format!("{} sweeps the {what}", ctx.id()));
    Ok(())
}

#[yadtq::task]
async fn report(region: String) -> String {
    format!("report of {region}")
}

fn worker(client: &Client, said: &Said) -> WorkerBuilder {
    let often = Periodic::every("sweep", Duration::from_secs(1), sweep.call("floor".to_owned()));
    let nightly = Periodic::cron("nightly-report", "0 3 * * *", report.call("eu".to_owned()));
    Worker::builder()
        .client(client)
        .register(sweep)
        .register(report)
        .state(said.clone())
        .periodic(often.missed(Missed::Skip))
        .periodic(nightly.time_zone("Europe/Berlin"))
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::embedded();
    let (said, mut heard) = unbounded_channel();
    let first = worker(&client, &said).start().await?;
    let second = worker(&client, &said).start().await?;
    for _ in 0..2 {
        println!("{}", heard.recv().await.expect("the sender lives"));
    }
    first.stop().await?;
    println!("{}", heard.recv().await.expect("the sender lives"));

    for periodic in client.admin().periodics().await? {
        println!("{}: {} runs {}", periodic.name, periodic.schedule, periodic.task);
    }
    second.stop().await
}
