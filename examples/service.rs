//! A web service that accepts orders and lets tasks do the slow part: state, retries by error type, status by id.
//!
//!     YADTQ_KAFKA=embedded cargo run --example service        # or without the variable, on Kafka and Redis
//!     curl -X POST localhost:3000/orders -H 'content-type: application/json' -d '{"customer":"ada","cents":1250}'
//!     curl localhost:3000/tasks/<the id that it answered>

use std::{collections::HashSet, sync::Mutex};

use axum::{
    Json, Router,
    extract::Path,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use yadtq::{Client, Context, Error, State, Status, TaskId, Worker};

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    customer: String,
    cents: u64,
}

/// What tasks share: a connection pool in a real service.
#[derive(Default)]
struct Bank {
    /// Charges that were made. A charge is made once for each key, however often it is asked for.
    charged: Mutex<HashSet<TaskId>>,
}

#[derive(Debug, thiserror::Error)]
enum ChargeError {
    #[error("the bank does not answer")]
    Unreachable,
    #[error("the bank declined {0} cents")]
    Declined(u64),
}

impl ChargeError {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable)
    }
}

/// Charges the customer. A bank that does not answer is asked again; one that has declined is not.
#[yadtq::task(queue = "payments", timeout = "30s", retry_base = "100ms", retry_if = ChargeError::is_transient)]
async fn charge(ctx: Context, bank: State<Bank>, order: Order) -> Result<String, ChargeError> {
    if ctx.attempt() == 1 {
        return Err(ChargeError::Unreachable);
    }
    if order.cents > 100_000 {
        return Err(ChargeError::Declined(order.cents));
    }
    // The task's id is the same in every run, so a worker that dies right here charges nobody twice.
    bank.charged.lock().expect("nobody panicked").insert(ctx.id().clone());
    Ok(format!("{} paid {} cents", order.customer, order.cents))
}

#[derive(Serialize)]
struct Accepted {
    task: TaskId,
}

/// Answers as soon as the order is safe, not when it is paid.
async fn accept(Json(order): Json<Order>) -> Result<(StatusCode, Json<Accepted>), Failure> {
    let handle = charge.delay(order).await?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { task: handle.id().clone() })))
}

#[derive(Serialize)]
struct Answer {
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

async fn look_up(Path(id): Path<TaskId>) -> Result<Json<Answer>, Failure> {
    let handle = charge.handle(&Client::current().await?, id);
    let (receipt, error) = match handle.result().await {
        Ok(receipt) => (receipt, None),
        Err(Error::TaskFailed { message, .. }) => (None, Some(message)),
        Err(other) => return Err(other.into()),
    };
    Ok(Json(Answer { status: handle.status().await?, receipt, error }))
}

/// An error of the queue as an answer.
struct Failure(Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.0 {
            Error::NotFound { .. } | Error::ResultExpired { .. } => StatusCode::NOT_FOUND,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, self.0.to_string()).into_response()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    Client::from_env().await?.install()?;
    // Here for a short example. In production workers are a service of their own, which is scaled and deployed by itself.
    let worker = Worker::builder().register(charge).state(Bank::default()).start().await?;

    let routes = Router::new().route("/orders", post(accept)).route("/tasks/{id}", get(look_up));
    let address = std::env::var("ADDRESS").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, routes).with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) }).await?;
    // Tasks that run may end, and the others stay queued.
    worker.stop().await?;
    Ok(())
}
