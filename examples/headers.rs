//! Headers: what is no argument, but goes with a task and with the tasks that it sends.
//!
//!     cargo run --example headers

use yadtq::{Client, Context, Error, TaskError, Worker};

/// Prints whose invoice it is: the tenant comes from whoever sent the first task.
#[yadtq::task]
async fn print_invoice(ctx: Context, order: u64) -> String {
    let tenant = ctx.header("tenant").unwrap_or("nobody");
    let asked_by = if ctx.root_id() == *ctx.id() { "itself" } else { "another task" };
    format!("invoice {order} of {tenant}, which began with {asked_by}")
}

/// Sends the other one, which inherits the headers.
#[yadtq::task]
async fn close_order(order: u64) -> Result<String, TaskError> {
    Ok(print_invoice.delay(order).await?.await?)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::embedded();
    client.install()?;
    let worker = Worker::builder().register((close_order, print_invoice)).start().await?;
    let handle = close_order.call(17).header("tenant", "acme").send(&client).await?;
    println!("{}", handle.await?);
    worker.stop().await
}
