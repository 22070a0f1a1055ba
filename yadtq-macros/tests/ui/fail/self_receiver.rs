struct Mailer;

impl Mailer {
    #[yadtq::task]
    async fn send(&self, to: String) -> bool {
        self.knows(&to)
    }

    fn knows(&self, to: &str) -> bool {
        to.is_empty()
    }
}

fn main() {
    let _ = Mailer.send(String::new());
}
