//! A worker that has lost one of the servers, which the others still reach.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};
use yadtq_tests::{
    process::Env,
    servers::{self, Kafka, free_port},
    until,
};

use super::{Fleet, all_succeed, hold, now, running, start, time_of, times};

/// Forwards connections until it is cut: then it answers nothing, and passes nothing on.
struct Proxy {
    address: String,
    is_cut: Arc<watch::Sender<bool>>,
}

impl Proxy {
    async fn to(server: &str, port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port");
        let (address, server) = (listener.local_addr().expect("an address").to_string(), server.to_owned());
        let is_cut = Arc::new(watch::Sender::new(false));
        let cut = Arc::clone(&is_cut);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (server, mut changed) = (server.clone(), cut.subscribe());
                tokio::spawn(async move {
                    becomes(&mut changed, false).await;
                    let Ok(mut far) = TcpStream::connect(&server).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        // The connections stay open, and nothing comes through any more, as with a cut cable.
                        () = becomes(&mut changed, true) => becomes(&mut changed, false).await,
                    }
                });
            }
        });
        Self { address, is_cut }
    }

    fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    fn restore(&self) {
        self.is_cut.send_replace(false);
    }
}

async fn becomes(changed: &mut watch::Receiver<bool>, is_cut: bool) {
    // It fails only once the proxy is gone.
    drop(changed.wait_for(|now| *now == is_cut).await);
}

/// One of three workers reaches a server through this proxy, which is cut.
async fn cut_off(fleet: &Fleet, env: &Env, proxy: &Proxy) {
    let others = fleet.workers(2).await;
    let alone = start(env);
    alone.event("partitions_assigned", |_| true).await;
    all_succeed(fleet.naps(9, 7_000).await).await;
    let all = || others.iter().chain([&alone]);
    until("each has partitions and runs tasks", async || {
        all_succeed(fleet.naps(30, 10).await).await;
        all().all(|worker| !worker.events("task_succeeded").is_empty()).then_some(())
    })
    .await;
    proxy.cut();
    let cut = now();
    // What is sent now lies in all partitions, those of the one that is cut off among them.
    let handles = fleet.naps(60, 10).await;
    all_succeed(handles).await;
    let took = cut.elapsed().expect("later");
    println!("all tasks had ended {took:?} after the cut");
    // The lease and a second.
    hold("it", took, Duration::from_secs(7), Duration::from_secs(20));
    assert!(running(&alone).is_empty() || !times(&others, "task_started").is_empty());

    proxy.restore();
    let restored = now();
    until("it comes back by itself", async || {
        all_succeed(fleet.naps(30, 10).await).await;
        alone.events("task_succeeded").iter().any(|event| time_of(event) > restored).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_run_the_tasks_of_a_worker_that_is_cut_off_from_redis() {
    let fleet = Fleet::new("noredis").await;
    let proxy = Proxy::to(servers::redis().trim_start_matches("redis://").trim_end_matches('/'), 0).await;
    let env = fleet.env.clone().with("YADTQ_REDIS", &format!("redis://{}", proxy.address));
    cut_off(&fleet, &env, &proxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_run_the_tasks_of_a_worker_that_is_cut_off_from_kafka() {
    let port = free_port();
    let kafka = Kafka::start_with_proxy(port);
    let fleet = Fleet::with("nokafka", &kafka.address(), &servers::redis()).await;
    let proxy = Proxy::to(&kafka.second_address(), port).await;
    let env = fleet.env.clone().with("YADTQ_KAFKA", &proxy.address);
    cut_off(&fleet, &env, &proxy).await;
}
