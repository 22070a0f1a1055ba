//! Producers and workers of two versions of a service run side by side.

use std::time::Duration;

use yadtq::{Client, Error, Worker};

use super::Bench;

const WAIT: Duration = Duration::from_secs(30);

mod old {
    #[yadtq::task]
    pub async fn transfer(from: u64, to: u64, cents: u64) -> String {
        format!("{cents} from {from} to {to}")
    }
}

/// Two parameters of one type have changed places, and one has come between.
mod new {
    #[yadtq::task]
    pub async fn transfer(to: u64, from: u64, note: Option<String>, cents: u64) -> String {
        format!("{cents} from {from} to {to}{}", note.unwrap_or_default())
    }
}

async fn values_go_to_the_parameters_of_their_names(client: &Client) {
    let send_old = async || old::transfer.call(1, 2, 300).send(client).await.expect("acknowledged");
    let send_new = async |note| new::transfer.call(2, 1, note, 300).send(client).await.expect("acknowledged");
    let worker = Worker::builder().client(client).register(new::transfer).start().await.expect("a worker");
    assert_eq!(send_old().await.wait(WAIT).await.expect("a result"), "300 from 1 to 2");
    let noted = send_new(Some(", rent".to_owned())).await;
    assert_eq!(noted.wait(WAIT).await.expect("a result"), "300 from 1 to 2, rent");
    worker.stop().await.expect("it stops");

    let worker = Worker::builder().client(client).register(old::transfer).start().await.expect("a worker");
    assert_eq!(send_old().await.wait(WAIT).await.expect("a result"), "300 from 1 to 2");
    assert_eq!(send_new(None).await.wait(WAIT).await.expect("a result"), "300 from 1 to 2");
    // A value that the old code does not know is never dropped.
    match send_new(Some(", rent".to_owned())).await.wait(WAIT).await {
        Err(Error::TaskFailed { message, .. }) => {
            let known = "no parameter is named `note`; the parameters are: from, to, cents";
            assert_eq!(message, known);
        }
        other => panic!("{other:?}"),
    }
    worker.stop().await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_go_to_the_parameters_of_their_names_through_kafka() {
    values_go_to_the_parameters_of_their_names(&Bench::new("versions").await.client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_go_to_the_parameters_of_their_names_embedded() {
    values_go_to_the_parameters_of_their_names(&Client::embedded()).await;
}
