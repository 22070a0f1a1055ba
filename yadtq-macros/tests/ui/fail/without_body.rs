trait Mail {
    #[yadtq::task]
    async fn send(to: String) -> bool;
}

fn main() {}
