mod mail {
    #[derive(Debug)]
    struct MailError;

    impl std::fmt::Display for MailError {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("no mail")
        }
    }

    impl std::error::Error for MailError {}

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Receipt;

    #[yadtq::task]
    pub async fn send(to: String) -> Result<usize, MailError> {
        Ok(to.len())
    }

    #[yadtq::task]
    pub async fn receive() -> Receipt {
        Receipt
    }
}

fn main() {
    let _ = mail::send.call(String::new());
}
